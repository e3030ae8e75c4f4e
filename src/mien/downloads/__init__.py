"""Files from elsewhere, checked before use: data sets, weights, single files of packages, models of the Hub."""
