"""From a Run to a finished run: defaults and data resolved, the loop, one step and its state, EMA."""
