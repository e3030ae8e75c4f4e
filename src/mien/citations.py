"""The papers and pages that presets stand on."""

from __future__ import annotations

from collections.abc import Iterable

BIBTEX = {
    "gan2014": """@inproceedings{gan2014,
  title  = {Generative Adversarial Nets},
  author = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and
            Warde-Farley, David and Ozair, Sherjil and Courville, Aaron and Bengio, Yoshua},
  booktitle = {Advances in Neural Information Processing Systems},
  year   = {2014},
  note   = {arXiv:1406.2661}
}""",
    "torch2015": """@misc{torch2015,
  title  = {Generating Faces with Torch},
  author = {Boesen Lindbo Larsen, Anders and S{\\o}nderby, S{\\o}ren Kaae},
  year   = {2015},
  month  = nov,
  note   = {Torch blog, 13 November 2015; code: skaae/torch-gan}
}""",
    "dcgan2015": """@misc{dcgan2015,
  title  = {Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks},
  author = {Radford, Alec and Metz, Luke and Chintala, Soumith},
  year   = {2015},
  note   = {arXiv:1511.06434; constants from soumith/dcgan.torch}
}""",
    "r3gan2024": """@inproceedings{r3gan2024,
  title  = {The {GAN} is dead; long live the {GAN}! A Modern {GAN} Baseline},
  author = {Huang, Yiwen and Gokaslan, Aaron and Kuleshov, Volodymyr and Tompkin, James},
  booktitle = {Advances in Neural Information Processing Systems},
  year   = {2024},
  note   = {arXiv:2501.05441}
}""",
    "stylegan2-2020": """@inproceedings{stylegan2-2020,
  title  = {Analyzing and Improving the Image Quality of {StyleGAN}},
  author = {Karras, Tero and Laine, Samuli and Aittala, Miika and Hellsten, Janne and Lehtinen, Jaakko and Aila, Timo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year   = {2020},
  note   = {arXiv:1912.04958; lazy regularisation}
}""",
}


def bibtex(keys: Iterable[str]) -> str:
    """BibTeX entries for citation keys, each once, in order."""
    return "\n\n".join(BIBTEX[key] for key in dict.fromkeys(keys))
