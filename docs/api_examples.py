"""One example for each public name of `mien`. docs/api.md shows their bodies; tests/test_api_page.py runs them."""

from __future__ import annotations


def example_of_train() -> None:
    import mien

    run = mien.train("quick", data="my.pack", images=64, batch=16, seed=1)
    print(run.path, run.report)
    faces = run.sampler().sample(seeds=range(8))
    assert faces.shape[0] == 8 and run.scores == []


def example_of_trainedrun() -> None:
    import mien

    run = mien.train("quick", data="my.pack", images=32, batch=16, out="runs/mine")
    assert mien.TrainedRun("runs/mine").path == run.path  # a run from before
    assert run.report.is_file()


def example_of_load() -> None:
    import mien

    sampler = mien.load("faces.safetensors", device="cpu")
    faces = sampler.sample(seeds=[3, 42])  # [2, 3, H, W] in [-1, 1]
    assert faces.min() >= -1 and faces.max() <= 1


def example_of_explore() -> None:
    import mien

    explorer = mien.explore("faces.safetensors")  # the last line of a cell shows the page
    print(explorer.url)
    explorer.close()


def example_of_sampler() -> None:
    import mien

    sampler = mien.load("faces.safetensors")
    z = sampler.latents([3, 42])
    between = sampler.decode((z[:1] + z[1:]) / 2)
    frames = list(sampler.walk([3, 42], frames=5))
    assert between.shape[1:] == frames[0].shape


def example_of_drawoptions() -> None:
    import mien

    typical = mien.load("faces.safetensors").with_options(mien.DrawOptions(truncation=0.7))
    assert typical.sample([42]).shape[0] == 1


def example_of_evaluate() -> None:
    import mien

    scores = mien.evaluate("faces.safetensors", data="my.pack", metrics=("diversity",), samples=32)
    for score in scores:
        print(score.name, score.value, score.low, score.high)


def example_of_save_grid() -> None:
    import mien

    faces = mien.load("faces.safetensors").sample(seeds=range(16))
    path = mien.save_grid(faces, "grid.png", columns=4)
    assert path.is_file()


def example_of_presets() -> None:
    import mien

    assert "quick" in mien.presets()
    print(mien.presets("gan").story)


def example_of_run() -> None:
    import dataclasses

    import mien

    run = dataclasses.replace(mien.presets("quick"), images=32, batch=16, minutes=None)
    assert isinstance(run, mien.Run)
    mien.train(run, data="my.pack")


def example_of_emaconfig() -> None:
    import mien

    mien.train("quick", data="my.pack", images=32, batch=16, ema=mien.EMAConfig(half_life=500))


def example_of_imagespec() -> None:
    import mien

    spec = mien.ImageSpec(side=64, channels=3, label_dim=0)
    assert spec.side == 64


def example_of_batch() -> None:
    import torch

    import mien

    batch = mien.Batch(images=torch.zeros(8, 3, 64, 64), labels=None)
    assert batch.images.shape[0] == 8


def example_of_progress() -> None:
    import mien

    class Printer(mien.Observer):
        """See docs/own_model.py for a model of your own; observers of `mien.train` are composed inside."""

        def after_step(self, progress: mien.Progress, model: mien.Model) -> None:
            print(progress.seen, progress.stats)

    assert Printer is not None


def example_of_observer() -> None:
    import mien

    assert {"after_step", "after_commit", "close"} <= set(dir(mien.Observer))


def example_of_model() -> None:
    import mien

    model = mien.load("faces.safetensors").model
    assert isinstance(model, mien.Model)
    print(model.latent_shape, model.label_dim)


def example_of_invertible() -> None:
    import mien

    sampler = mien.load("faces.safetensors")
    faces = sampler.sample([3])
    if isinstance(sampler.model, mien.Invertible):
        again = sampler.reconstruct(faces)
        assert again.shape == faces.shape


def example_of_prior() -> None:
    import mien

    model = mien.load("faces.safetensors").model
    print(type(model.prior).__name__)  # a mien.Prior
    z = model.prior.draw([42], model.latent_shape)  # seed 42, on every machine
    assert z.shape == (1, *model.latent_shape)


def example_of_modelconfig() -> None:
    import mien

    assert isinstance(mien.presets("gan").model, mien.ModelConfig)


def example_of_networkconfig() -> None:
    import mien

    assert issubclass(mien.NetworkConfig, object)


def example_of_recipe() -> None:
    import mien

    assert hasattr(mien.Recipe, "step")  # yields updates; docs/own_model.py has a whole one


def example_of_recipeconfig() -> None:
    import mien

    assert isinstance(mien.presets("gan").recipe, mien.RecipeConfig)


def example_of_update() -> None:
    import mien

    print(mien.Update.__doc__)
