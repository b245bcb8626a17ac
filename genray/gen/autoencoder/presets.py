"""Presets of autoencoders: each function returns a complete configuration.

Options on the command line change the returned configuration. `families.py` lists the presets.
"""

from dataclasses import replace

from genray.gen.autoencoder.config import AEConfig, AEModelConfig
from genray.gen.data.config import DataConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig


def ae_digits() -> AEConfig:
    """Configure an autoencoder of digits, 64 → 256 → 128 → 10 numbers and back.

    Training takes seconds.
    """
    return AEConfig(
        fit=FitConfig(epochs=60), optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine")
    )


def pca() -> AEConfig:
    """Configure a linear autoencoder, which L-BFGS trains to find the subspace of PCA.

    On digits, 300 steps reach PCA's error to within 1e-5. Only --steps ends the training. Another
    data set may need more steps, depending on its spectrum: compare `mse` with `pca_mse` in the
    test metrics, and increase --steps if they differ.
    """
    return AEConfig(
        fit=FitConfig(steps=300, validate_every=100),
        model=AEModelConfig(code=10, widths=(), output="linear", tied=True, lbfgs=True),
    )


def map_digits() -> AEConfig:
    """Configure an autoencoder of digits with a code of 2 numbers, for drawing a map."""
    return AEConfig(
        fit=FitConfig(epochs=150),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine"),
        model=AEModelConfig(code=2),
    )


def denoising_digits() -> AEConfig:
    """Configure an autoencoder that removes Gaussian noise from digits (standard deviation 0.3)."""
    return AEConfig(
        fit=FitConfig(epochs=100),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine"),
        model=AEModelConfig(kind="denoising", code=64, widths=(256,), corruption_strength=0.3),
    )


def denoising_conv_digits() -> AEConfig:
    """Configure a convolutional autoencoder that removes Gaussian noise of standard deviation 0.3
    from digits, also from those of `--data mnist5k`.
    """
    return AEConfig(
        fit=FitConfig(epochs=30),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine"),
        model=AEModelConfig(
            kind="conv",
            code=64,
            widths=(16, 32),
            corruption="gaussian",
            corruption_strength=0.3,
        ),
    )


def conv_digits() -> AEConfig:
    """Configure an autoencoder of digits with two convolutions and a code of 16 numbers."""
    return AEConfig(
        fit=FitConfig(epochs=30),
        optimizer=OptimizerConfig(learning_rate=3e-3, schedule="cosine"),
        model=AEModelConfig(kind="conv", code=16, widths=(16, 32)),
    )


def stacked_source() -> AEConfig:
    """Configure an MNIST autoencoder, 784 → 300 → 150 → 300 → 784.

    It is trained layer by layer, and then as a whole.
    """
    return AEConfig(
        data=DataConfig(data="mnist"),
        fit=FitConfig(epochs=10),
        model=AEModelConfig(
            kind="stacked", code=150, widths=(300,), activation="elu", code_activation="relu"
        ),
    )


def stacked_classifier() -> AEConfig:
    """Configure an MNIST autoencoder, 784 → 128 → 64 → 10 → 2, and a classifier with 1,000 labels.

    The autoencoder is trained layer by layer, and then as a whole. The classifier learns from so
    few labels that its encoder needs the whole learning rate.
    """
    return AEConfig(
        data=DataConfig(data="mnist"),
        fit=FitConfig(epochs=10),
        model=AEModelConfig(
            kind="stacked",
            code=2,
            widths=(128, 64, 10),
            activation="tanh",
            finetune_labels=1000,
            finetune_rate=1.0,
        ),
    )


def stacked_digits() -> AEConfig:
    """Configure an autoencoder of warped digits, 64 → 128 → 64 → 32, and a classifier with 100
    labels.

    The autoencoder is trained layer by layer, and then as a whole.
    """
    return AEConfig(
        fit=FitConfig(epochs=30),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        model=AEModelConfig(
            kind="stacked",
            code=32,
            widths=(128, 64),
            corruption="warp",
            whole=True,
            finetune_labels=100,
        ),
    )


def stacked_conv_digits() -> AEConfig:
    """Configure an autoencoder of digits with two convolutional layers and a dense layer.

    It is trained layer by layer, and then as a whole.
    """
    return AEConfig(
        fit=FitConfig(epochs=10),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        model=AEModelConfig(kind="stacked-conv", code=16, widths=(16, 32)),
    )


def retrieval_digits() -> AEConfig:
    """Configure an autoencoder with codes of 10 numbers for nearest-neighbour search.

    The network reconstructs upright digits from warped ones, so that codes ignore the pose.
    """
    return AEConfig(
        fit=FitConfig(epochs=150),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine"),
        model=AEModelConfig(
            kind="denoising", corruption="warp", corruption_strength=0.3, code_activation="tanh"
        ),
    )


def retrieval_mnist5k() -> AEConfig:
    """Configure `retrieval_digits` for 5,000 digits of MNIST, 28x28 pixels.

    It has batch norm, half the learning rate and 100 epochs. Without batch norm, at the learning
    rate of `retrieval_digits`, the network outputs the mean image for all digits.
    """
    config = retrieval_digits()
    return replace(
        config,
        data=DataConfig(data="mnist5k"),
        fit=replace(config.fit, epochs=100),
        optimizer=replace(config.optimizer, learning_rate=1e-3),
        model=replace(config.model, batch_norm=True),
    )


def retrieval_cifar10() -> AEConfig:
    """Configure a convolutional autoencoder of CIFAR-10 with codes of 256 numbers for search.

    The feature maps have 32x32, 16x16 and 8x8 pixels, with 32, 64 and 128 channels; the code is
    256 of 3,072 numbers. Without a GPU, training takes too long.
    [Krizhevsky 2011, https://www.cs.toronto.edu/~hinton/absps/esann-deep-final.pdf, with
    convolutions instead of dense layers, and real codes instead of bits]
    """
    return AEConfig(
        data=DataConfig(data="cifar10"),
        fit=FitConfig(epochs=30, batch_size=128),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine"),
        model=AEModelConfig(
            kind="conv", code=256, widths=(32, 64, 128), corruption="none", batch_norm=True
        ),
    )


def text_docs() -> AEConfig:
    """Configure an autoencoder of bags of words, with codes of 128 numbers.

    Half of the words are masked, and the network predicts them from the other half.
    """
    return AEConfig(
        data=DataConfig(data="docs"),
        fit=FitConfig(epochs=40),
        optimizer=OptimizerConfig(schedule="cosine"),
        model=AEModelConfig(
            kind="denoising",
            corruption="masking",
            corruption_strength=0.5,
            code=128,
            widths=(),
            output="linear",
            reconstruction="cosine",
        ),
    )


def map_docs() -> AEConfig:
    """Configure an autoencoder of bags of words with codes of 2 numbers, for a map by topic.

    The network is deep, because no layer of two units could separate 30 topics by itself. Half of
    the words are masked.
    [Hinton 2006, https://doi.org/10.1126/science.1127647, with a cosine instead of a softmax]
    """
    config = text_docs()
    return replace(
        config,
        model=replace(config.model, code=2, widths=(256, 64), code_activation="linear"),
    )


def hashing_docs() -> AEConfig:
    """Configure an autoencoder of bags of words with codes of 32 bits, for search by Hamming
    distance.

    [Salakhutdinov 2009, semantic hashing, https://doi.org/10.1016/j.ijar.2008.11.006]
    """
    return AEConfig(
        data=DataConfig(data="docs"),
        fit=FitConfig(epochs=40),
        optimizer=OptimizerConfig(schedule="cosine"),
        model=AEModelConfig(
            kind="denoising",
            corruption="masking",
            corruption_strength=0.5,
            code=32,
            widths=(256,),
            output="linear",
            reconstruction="cosine",
            binary=True,
        ),
    )
