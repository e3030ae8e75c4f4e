"""The papers and pages that presets stand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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
    "soap2024": """@inproceedings{soap2024,
  title  = {{SOAP}: Improving and Stabilizing {Shampoo} using {Adam}},
  author = {Vyas, Nikhil and Morwani, Depen and Zhao, Rosie and Kwun, Mujin and Shapira, Itai and
            Brandfonbrener, David and Janson, Lucas and Kakade, Sham},
  booktitle = {International Conference on Learning Representations},
  year   = {2025},
  note   = {arXiv:2409.11321}
}""",
    "edm2-2024": """@inproceedings{edm2-2024,
  title  = {Analyzing and Improving the Training Dynamics of Diffusion Models},
  author = {Karras, Tero and Aittala, Miika and Lehtinen, Jaakko and Hellsten, Janne and Aila, Timo and Laine, Samuli},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year   = {2024},
  note   = {arXiv:2312.02696}
}""",
    "stylegan2-2020": """@inproceedings{stylegan2-2020,
  title  = {Analyzing and Improving the Image Quality of {StyleGAN}},
  author = {Karras, Tero and Laine, Samuli and Aittala, Miika and Hellsten, Janne and Lehtinen, Jaakko and Aila, Timo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year   = {2020},
  note   = {arXiv:1912.04958; lazy regularisation}
}""",
    "flow2022": """@inproceedings{flow2022,
  title  = {Flow Matching for Generative Modeling},
  author = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year   = {2023},
  note   = {arXiv:2210.02747}
}""",
    "rectified2022": """@inproceedings{rectified2022,
  title  = {Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow},
  author = {Liu, Xingchao and Gong, Chengyue and Liu, Qiang},
  booktitle = {International Conference on Learning Representations},
  year   = {2023},
  note   = {arXiv:2209.03003}
}""",
    "began2017": """@misc{began2017,
  title  = {{BEGAN}: Boundary Equilibrium Generative Adversarial Networks},
  author = {Berthelot, David and Schumm, Thomas and Metz, Luke},
  year   = {2017},
  note   = {arXiv:1703.10717; layout after the author's library tf_img_tech}
}""",
    "zhao2020": """@misc{zhao2020,
  title  = {Face Generation and Interpolation with {BEGAN}},
  author = {Zhao, Sicong},
  year   = {2020},
  note   = {GitHub: sicongzhao/Face-Generation-and-Interpolation-with-BEGAN}
}""",
    "vae2013": """@inproceedings{vae2013,
  title  = {Auto-Encoding Variational {Bayes}},
  author = {Kingma, Diederik P. and Welling, Max},
  booktitle = {International Conference on Learning Representations},
  year   = {2014},
  note   = {arXiv:1312.6114}
}""",
    "sigma2021": """@inproceedings{sigma2021,
  title  = {Simple and Effective {VAE} Training with Calibrated Decoders},
  author = {Rybkin, Oleh and Daniilidis, Kostas and Levine, Sergey},
  booktitle = {International Conference on Machine Learning},
  year   = {2021},
  note   = {arXiv:2006.13202}
}""",
    "realnvp2017": """@inproceedings{realnvp2017,
  title  = {Density Estimation Using {Real} {NVP}},
  author = {Dinh, Laurent and Sohl-Dickstein, Jascha and Bengio, Samy},
  booktitle = {International Conference on Learning Representations},
  year   = {2017},
  note   = {arXiv:1605.08803}
}""",
    "lossy2017": """@inproceedings{lossy2017,
  title  = {Variational Lossy Autoencoder},
  author = {Chen, Xi and Kingma, Diederik P. and Salimans, Tim and Duan, Yan and Dhariwal, Prafulla and Schulman, John and
            Sutskever, Ilya and Abbeel, Pieter},
  booktitle = {International Conference on Learning Representations},
  year   = {2017},
  note   = {arXiv:1611.02731; a prior learned by a flow, section 3.2}
}""",
    "freebits2016": """@inproceedings{freebits2016,
  title  = {Improved Variational Inference with Inverse Autoregressive Flow},
  author = {Kingma, Diederik P. and Salimans, Tim and Jozefowicz, Rafal and Chen, Xi and Sutskever, Ilya and Welling, Max},
  booktitle = {Advances in Neural Information Processing Systems},
  year   = {2016},
  note   = {arXiv:1606.04934; free bits, section C.8}
}""",
    "simpsons2023": """@misc{simpsons2023,
  title  = {{VAE} Face Generation},
  author = {{Leikrit}},
  year   = {2023},
  note   = {GitHub: Leikrit/LMH\\_Summer\\_Programme, after dredwardhyde/vae-image-generation-example and podgorskiy/VAE}
}""",
    "vaegan2016": """@inproceedings{vaegan2016,
  title  = {Autoencoding beyond pixels using a learned similarity metric},
  author = {Larsen, Anders Boesen Lindbo and S{\\o}nderby, S{\\o}ren Kaae and Larochelle, Hugo and Winther, Ole},
  booktitle = {International Conference on Machine Learning},
  year   = {2016},
  note   = {arXiv:1512.09300; constants from andersbll/autoencoding\\_beyond\\_pixels}
}""",
    "cppn2016": """@misc{cppn2016,
  title  = {Generating Large Images from Latent Vectors},
  author = {Ha, David},
  year   = {2016},
  month  = apr,
  note   = {blog.otoro.net; code: hardmaru/cppn-gan-vae-tensorflow. Part two, June 2016: hardmaru/resnet-cppn-gan-tensorflow}
}""",
    "homogan2020": """@misc{homogan2020,
  title  = {homogan: Generating Faces Given Some Features},
  author = {Nieto, Albert and others},
  year   = {2020},
  note   = {GitHub: albertnieto/homogan, a postgraduate project at UPC}
}""",
    "spectral2018": """@inproceedings{spectral2018,
  title  = {Spectral Normalization for Generative Adversarial Networks},
  author = {Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi},
  booktitle = {International Conference on Learning Representations},
  year   = {2018},
  note   = {arXiv:1802.05957}
}""",
    "attention2018": """@inproceedings{attention2018,
  title  = {Self-Attention Generative Adversarial Networks},
  author = {Zhang, Han and Goodfellow, Ian and Metaxas, Dimitris and Odena, Augustus},
  booktitle = {International Conference on Machine Learning},
  year   = {2019},
  note   = {arXiv:1805.08318}
}""",
}


#: What an option adds to what its config cites, by name and value.
OF_OPTIONS: dict[tuple[str, str | bool], str] = {("optimizer", "soap"): "soap2024", ("hold_norms", True): "edm2-2024"}


def of_options(values: Mapping[str, Any]) -> Iterator[str]:
    """The citation keys of the options in a config, given as nested dictionaries."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from of_options(value)
        elif isinstance(value, str | bool) and (name, value) in OF_OPTIONS:
            yield OF_OPTIONS[name, value]


def bibtex(keys: Iterable[str]) -> str:
    """BibTeX entries for citation keys, each once, in order."""
    return "\n\n".join(BIBTEX[key] for key in dict.fromkeys(keys))
