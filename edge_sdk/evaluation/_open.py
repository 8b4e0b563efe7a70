"""Opens checkpoints, bundles and bare programs so that they can be judged by the same rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.evaluation._subject import Subject, check_device, checkpoint_subject, kind_of

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.evaluation.result import Kind
    from edge_sdk.models.photo_tagging.plugin import PhotoTagging

Say = Callable[[str], None]


@dataclass(frozen=True)
class Loader:
    """Opens what is to be judged, all for the same data and, where they leave the choice, the same size of images.

    Attributes:
        name: The model's name.
        settings: Its settings.
        data: The COCO folder.
        categories: The data's categories.
        scratch: A folder for bundles around bare programs.
    """

    name: str
    settings: Mapping[str, str]
    data: str
    categories: Sequence[str]
    scratch: Path

    def subjects(
        self, paths: Sequence[Path], device: str | None, runner: str | None, threads: int | None, say: Say
    ) -> list[Subject]:
        """The taggers at some paths; checkpoints take images of the size that the programs beside them take."""
        kinds: list[Kind] = [kind_of(path) for path in paths]
        if all(kind == "checkpoint" for kind in kinds):
            check_device("checkpoint", device)
        bundles = [
            None if kind == "checkpoint" else self._bundle(path, kind, self.scratch / str(place))
            for place, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ]
        settings = self._with_size([bundle for bundle in bundles if bundle is not None])
        subjects = [
            checkpoint_subject(path, settings, self._model)
            if bundle is None
            else self._program(path, kind, bundle, settings, device or "local", runner, threads, say)
            for path, kind, bundle in zip(paths, kinds, bundles, strict=True)
        ]
        return _told_apart(subjects)

    def _bundle(self, path: Path, kind: Kind, scratch: Path) -> Bundle:
        from edge_sdk.bundle import Bundle
        from edge_sdk.evaluation._program import bundle_of_onnx, bundle_of_pte

        if kind == "bundle":
            return Bundle.open(path)
        if kind == "onnx":
            return bundle_of_onnx(path, scratch)
        return bundle_of_pte(path, self._model(self.settings).input_size, len(self.categories), scratch)

    def _with_size(self, bundles: Sequence[Bundle]) -> dict[str, str]:
        from edge_sdk.evaluation._program import image_size

        sizes = {bundle.path.name: size for bundle in bundles if (size := image_size(bundle)) is not None}
        asked = self.settings.get("input_size")
        for name, size in sizes.items():
            if asked is not None and asked != str(size):
                raise ModelError(f"{name} takes images of {size} pixels, and input_size is {asked}. Leave it out.")
        if len(set(sizes.values())) > 1 or not sizes:
            return dict(self.settings)  # each program has its own size
        return {**self.settings, "input_size": str(next(iter(sizes.values())))}

    def _program(
        self,
        path: Path,
        kind: Kind,
        bundle: Bundle,
        settings: Mapping[str, str],
        device: str,
        runner: str | None,
        threads: int | None,
        say: Say,
    ) -> Subject:
        from edge_sdk.evaluation._program import BARE, check_categories, image_size, on_device

        check_categories(bundle, self.categories)
        manifest = bundle.manifest
        size = image_size(bundle)
        is_bare = manifest.quantization.method == BARE
        return Subject(
            name=path.name if is_bare else manifest.quantization.method,
            kind=kind,
            path=path,
            sha256=manifest.key if is_bare else bundle.manifest_sha256,
            size_bytes=manifest.size_bytes,
            method=None if is_bare else manifest.quantization.method,
            device=device,
            model=self._model({**settings, **({} if size is None else {"input_size": str(size)})}),
            start=lambda: on_device(bundle, device, runner, threads, say),
        )

    def _model(self, settings: Mapping[str, str]) -> PhotoTagging:
        from edge_sdk.models import MODELS
        from edge_sdk.models.photo_tagging.plugin import PhotoTagging

        plugin = MODELS.load(self.name)
        if not (isinstance(plugin, type) and issubclass(plugin, PhotoTagging)):
            raise UnsupportedError(
                f"model '{self.name}' is no tagger of COCO's categories; evaluation judges photo_tagging."
            )
        return plugin(**{**settings, "data": self.data})


def _told_apart(subjects: list[Subject]) -> list[Subject]:
    """The same, with the names of the files where the names are equal."""
    if len({subject.name for subject in subjects}) == len(subjects):
        return subjects
    return [replace(subject, name=f"{subject.name}, {subject.path.name}") for subject in subjects]
