"""Removes channels, with everything that depends on them: layers really become smaller.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv 2301.12900, by torch-pruning.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edge_sdk.errors import EdgeSdkError, MissingDependencyError, UnsupportedError, first_line

M = TypeVar("M", bound=nn.Module)

_MOST = 0.95  # of the channels of a layer
_NEAR = 0.002  # a ratio of channels is searched this closely
ROUND_TO = 8
"""Layers keep a multiple of so many channels, which kernels are fast with."""
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


class NothingToPrune(UnsupportedError):
    """No channel can go without changing the inputs or outputs."""


def remove_channels(module: M, example_inputs: tuple[Tensor, ...], share: float, round_to: int) -> M:
    """A copy of a module with the least channels removed that bring its parameters down by a share.

    Every layer loses the same share of its channels, those with the least norm over all weights that go with them.
    Inputs and outputs keep their widths.

    Args:
        module: Any network that autograd can follow.
        example_inputs: Positional inputs of its ``forward``.
        share: Of the parameters, from 0 to 1.
        round_to: Layers keep a multiple of so many channels where they lose any.

    Raises:
        NothingToPrune: No channel can go.
        UnsupportedError: So many parameters cannot go, or the network cannot be followed.
        MissingDependencyError: torch-pruning is not installed.
    """
    before = parameters_of(module)
    low, high = 0.0, _MOST
    best = _pruned(module, example_inputs, high, round_to)
    if (most := 1 - parameters_of(best) / before) < share:
        raise UnsupportedError(
            f"pruning away {share:.0%} of the parameters is not possible: at most {most:.0%} can go while inputs and "
            "outputs keep their widths. Give less."
        )
    while high - low > _NEAR:
        middle = (low + high) / 2
        tried = _pruned(module, example_inputs, middle, round_to)
        if 1 - parameters_of(tried) / before < share:
            low = middle
        else:
            high, best = middle, tried
    return best


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one layer, with the same channels of all layers that can only lose them together.

    Attributes:
        name: The first of the layers.
        importance: Of each channel, ``[channels]``.
        members: Modules that give these channels, each with its own numbers of them and those of the first layer.
    """

    name: str
    importance: Tensor
    members: tuple[tuple[nn.Module, Tensor, Tensor], ...]

    def silence(self, count: int) -> None:
        """Sets the least important channels to zero, which changes the outputs as removing them does."""
        gone = self.importance.topk(count, largest=False).indices
        with torch.no_grad():
            for module, own, first in self.members:
                places = own[torch.isin(first, gone)]
                for value in module.state_dict(keep_vars=True).values():
                    if value.ndim and len(value) > int(own.max()):
                        value[places] = 0.0


def groups_of(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[ChannelGroup]:
    """All groups of channels that can go without changing the inputs or outputs of a module, in its order.

    Args:
        module: The network itself, not a copy.
        example_inputs: Positional inputs of its ``forward``.

    Raises:
        NothingToPrune: There are none.
        UnsupportedError: The network cannot be followed.
        MissingDependencyError: torch-pruning is not installed.
    """
    judge = _torch_pruning().importance.GroupMagnitudeImportance(p=2)
    names = {one: name for name, one in module.named_modules()}
    order = list(names.values())
    found = []
    with _traceable(module):
        graph, fenced = _followed(module, example_inputs)
        for group in graph.get_all_groups(fenced, _LAYERS):
            members = tuple(
                (item.dep.target.module, torch.tensor(item.idxs), torch.tensor(item.root_idxs))
                for item in group
                if graph.is_out_channel_pruning_fn(item.dep.handler) and item.dep.target.module in names
            )
            layers = [names[one] for one, *_ in members if isinstance(one, _LAYERS)]
            found.append(ChannelGroup(min(layers, key=order.index), judge(group).detach(), members))
    return sorted(found, key=lambda group: order.index(group.name))


def parameters_of(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


class _Fenced(nn.Module):
    """A module whose inputs and outputs are marked in autograd's graph."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.marks: list[Any] = []

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs that depend on parameters or inputs."""
        from torch.utils import _pytree as pytree

        marked = [one.detach().requires_grad_() * 1.0 if one.is_floating_point() else one for one in inputs]
        self.marks = [one.grad_fn for one in marked if one.grad_fn is not None]
        outputs = [one for one in pytree.tree_leaves(self.module(*marked)) if isinstance(one, Tensor)]
        return [one * 1.0 for one in outputs if one.requires_grad]


def _pruned(module: M, example_inputs: tuple[Tensor, ...], ratio: float, round_to: int) -> M:
    """A copy without a ratio of its channels."""
    tp = _torch_pruning()
    done = copy.deepcopy(module)
    with _traceable(done):
        wanted = _shapes(done, example_inputs)
        graph, fenced = _followed(done, example_inputs)
        with _explained():
            ratios = {}
            for group in graph.get_all_groups(fenced, _LAYERS):
                if removed := _removed(len(group[0].idxs), ratio, round_to):
                    # Half a channel less, for what is left is rounded down.
                    ratios[group[0].dep.target.module] = (removed - 0.5) / len(group[0].idxs)
            pruner = tp.pruner.BasePruner(
                _Fenced(done),
                example_inputs,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=0.0,
                pruning_ratio_dict=ratios,
                ignored_layers=fenced,
                root_module_types=_LAYERS,
            )
            pruner.step()
            found = _shapes(done, example_inputs)
    if found != wanted:
        raise UnsupportedError(
            f"pruning would change the outputs of {type(module).__name__} from {wanted} to {found}: its layers depend "
            "on each other in a way that cannot be followed."
        )
    return done


def _removed(channels: int, ratio: float, round_to: int) -> int:
    """How many of a layer's channels go, so that a multiple of some number is left, the nearest."""
    left = max(1, round(channels * (1 - ratio) / round_to)) * round_to
    return max(0, channels - left)


def _followed(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> tuple[Any, list[nn.Module]]:
    """The dependency graph, and the modules whose channels inputs or outputs depend on.

    Raises:
        NothingToPrune: There are no others.
    """
    tp = _torch_pruning()
    whole = _Fenced(module)
    with _explained():
        graph = tp.DependencyGraph().build_dependency(whole, example_inputs, verbose=False)
        marks, fenced, free = set(whole.marks), [], 0
        for group in graph.get_all_groups([], _LAYERS):
            nodes = [node for dep, _ in group for node in (dep.source, dep.target)]
            giving = [dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)]
            is_fenced = any(node.type == tp.ops.OPTYPE.OUTPUT or node.grad_fn in marks for node in nodes)
            # torch-pruning cuts an LSTM's state wrongly; it keeps its width.
            if is_fenced or any(isinstance(one, nn.LSTM) for one in giving):
                fenced += giving
            else:
                free += 1
    if not free:
        raise NothingToPrune(
            f"{type(module).__name__} has no channels that can go: its inputs and outputs depend on all of them."
        )
    return graph, [one for one in dict.fromkeys(fenced) if isinstance(one, _LAYERS)]


def _shapes(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[list[int]]:
    from edge_sdk.pipeline.capture import flat_outputs

    with torch.no_grad():
        return [list(one.shape) for one in flat_outputs(module(*example_inputs))]


@contextlib.contextmanager
def _traceable(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, with all parameters learning, as autograd needs it to be followed."""
    was_training = {one: one.training for one in module.modules()}
    frozen = {name for name, one in module.named_parameters() if not one.requires_grad}
    module.eval().requires_grad_(True)
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operators that are taken to be element by element
            yield
    finally:
        for one, training in was_training.items():
            one.training = training
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in frozen)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except EdgeSdkError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"the network's channels cannot be pruned: {type(error).__name__}: {first_line(error)}. Its layers depend "
            "on each other in a way that torch-pruning does not follow; magN works on any network."
        ) from error


def check_installed() -> None:
    """Checks that channels can be removed.

    Raises:
        MissingDependencyError: torch-pruning is not installed.
    """
    _torch_pruning()


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingDependencyError(
            f"removing channels needs torch-pruning, which cannot be imported ({error}): pip install 'edge-sdk[train]'."
        ) from error
    return torch_pruning
