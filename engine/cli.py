"""`build-engine`: TensorRT plans made, listed, looked into and deleted."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.spec import ModelSpec
    from engine.trt.plan import PlanConfig, PlanRecord

__all__ = ["main"]

EXAMPLES = """\b
Examples:
  build-engine                              the model full, for GPU 0
  build-engine --tile 544x960 --batch 4     small tiles, four at a time
  build-engine --tile 2160x3840 --fixed     for videos of that size alone: fastest
  build-engine --precision bf16 --gpu 1
  build-engine --runtime rtx                for TensorRT-RTX: in seconds, for all GPUs
  build-engine --dry-run                    what would be built, and where it would go
  build-engine list
  build-engine inspect ~/.cache/firewatch-stylizer/plans/1f6c2a90b3d4e5f6
"""


class ShapeType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """`1088x1920`, or `4x1088x1920` with a batch in front."""

    name = "[NxH]xW"

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Numbers of a shape."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) not in self.sizes or not all(part.isdigit() and int(part) for part in parts):
            self.fail(f"{value!r} is no shape; write it like {'1088x1920' if 2 in self.sizes else '1x1088x1920'}")
        return tuple(int(part) for part in parts)


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """`4GiB`, `512MiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        from engine.trt.plan import parse_size

        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error))


class _Group(click.Group):
    """Shows engine errors as one line; a run without a subcommand builds."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EngineError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except ValueError as error:
            raise click.UsageError(str(error)) from error


cache_option = click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), help="Cache folder.  [default: the user's]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.group(cls=_Group, invoke_without_command=True, epilog=EXAMPLES, context_settings={"max_content_width": 100})
@click.option("--model", default=None, help="Model by name, or the path of a model folder.  [default: full]")
@click.option("--gpu", default=0, show_default=True, type=click.IntRange(0), help="Number of the GPU (nvidia-smi).")
@click.option("--runtime", default="tensorrt", show_default=True, type=click.Choice(["tensorrt", "rtx"]))
@click.option("--precision", default="fp16", show_default=True, type=click.Choice(["fp16", "bf16", "fp32"]))
@click.option(
    "--tile",
    type=ShapeType((2,)),
    help="Largest tile, height x width.  [default: 1088x1920 or larger]",
)
@click.option("--fixed", is_flag=True, help="Only tiles of just that size and batch: faster, for videos.")
@click.option("--batch", type=click.IntRange(1, 64), help="Tiles at a time.  [default: 1]")
@click.option("--min", "low", type=ShapeType((3,)), help="Smallest batch x height x width; with --opt and --max.")
@click.option("--opt", "usual", type=ShapeType((3,)), help="Shape that kernels are timed with.")
@click.option("--max", "high", type=ShapeType((3,)), help="Largest shape.")
@click.option("--workspace", default=4 << 30, show_default="4GiB", type=SizeType(), help="Memory for kernels.")
@click.option("--optimization-level", default=3, show_default=True, type=click.IntRange(0, 5))
@click.option(
    "--hardware-compatible", type=click.Choice(["ampere+"]), help="Run on every GPU from Ampere on; somewhat slower."
)
@click.option("--version-compatible", is_flag=True, help="Run in later TensorRT of the same major version.")
@click.option("--timing-cache", type=click.Path(dir_okay=False, path_type=Path), help="File with kernel timings.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Plan folder outside the cache.")
@cache_option
@click.option("--force", is_flag=True, help="Build even if there is such a plan.")
@click.option("--dry-run", is_flag=True, help="Only say what would be built.")
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show TensorRT's log.")
@click.pass_context
def main(ctx: click.Context, /, *, verbose: bool, **values: Any) -> None:
    """Build the TensorRT plans of a model for this machine's GPU.

    A plan belongs to one GPU, one TensorRT version and one model.  It is kept in the cache folder, and
    `stylize` finds it there.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", stream=sys.stderr)
    if not verbose:
        logging.getLogger("engine.tensorrt").setLevel(logging.ERROR)
    if ctx.invoked_subcommand is None:
        _build(**values)


def _build(
    *, model: str | None, gpu: int, timing_cache: Path | None, output: Path | None, cache: Path | None,
    force: bool, dry_run: bool, as_json: bool, **values: Any,
) -> None:  # fmt: skip
    from engine.model_store import find_model
    from engine.spec import ModelSpec
    from engine.trt.plan import PlanCache

    folder = find_model(model or "full")
    spec = ModelSpec.load(folder)
    config = _config(spec, **values)
    from engine.builder import Builder

    with _progress_bar() as show:
        builder = Builder(
            folder, config, cache=PlanCache(cache), gpu=gpu, timing_cache=timing_cache, progress=show
        )  # fmt: skip
        if dry_run:
            return _dry_run(builder, gpu, output, as_json)
        target, record = builder.build(force=force, output=output)
    if as_json:
        click.echo(json.dumps({"folder": str(target), **record.to_dict()}, indent=2))
    else:
        click.echo(f"{target}\n  {_summary(record)}")


def _config(
    spec: ModelSpec, *, runtime: str, precision: str, tile: tuple[int, int] | None, fixed: bool, batch: int | None,
    low: tuple[int, int, int] | None, usual: tuple[int, int, int] | None, high: tuple[int, int, int] | None,
    workspace: int, optimization_level: int, hardware_compatible: str | None, version_compatible: bool,
) -> PlanConfig:  # fmt: skip
    """The user's choices; ValueError where they contradict one another."""
    from engine.tiling import usual_tile
    from engine.trt.plan import PlanConfig, ShapeProfile

    shapes = [low, usual, high]
    if any(shapes) and (tile or batch or fixed):
        raise ValueError("give either --tile, --fixed and --batch, or --min, --opt and --max")
    if low and usual and high:
        profile = ShapeProfile(min=low, opt=usual, max=high)
    elif any(shapes):
        raise ValueError("--min, --opt and --max belong together: give all three")
    else:
        height, width = tile or usual_tile(spec.halo, spec.multiple)
        make = ShapeProfile.fixed if fixed else partial(ShapeProfile.of_tile, spec)
        profile = make(height, width, batch or 1)
    profile.check(spec)
    return PlanConfig(
        profile=profile,
        precision=precision,
        workspace=workspace,
        optimization_level=optimization_level,
        hardware_compatible=hardware_compatible is not None,
        version_compatible=version_compatible,
        runtime=runtime,
    )


def _dry_run(builder: Any, gpu: int, output: Path | None, as_json: bool) -> None:
    """What would be built, as far as this machine can tell."""
    spec, profile = builder.spec, builder.config.profile
    machine, refusal = None, None
    try:
        with builder.device() as device:
            machine = builder.machine(device)
    except EngineError as error:
        refusal = str(error)
    record = builder.record(machine) if machine else None
    target = output or (builder.cache.folder(record) if record else builder.cache.plans)
    n, height, width = profile.opt
    facts = {
        "model": spec.name,
        "machine": str(machine) if machine else None,
        "refusal": refusal,
        "runtime": builder.config.runtime,
        "precision": builder.config.precision,
        "render": {name: "x".join(map(str, getattr(profile, name))) for name in ("min", "opt", "max")},
        "gflop": round(n * spec.program.flops(height, width) / 1e9, 1),
        "onnx_mib": {name: round(len(data) / 2**20, 2) for name, data in builder.graphs.items()},
        "target": str(target),
        "exists": bool(record and (target / "plan.json").is_file()),
    }
    if as_json:
        return click.echo(json.dumps(facts, indent=2))
    click.echo(f"model     {spec.name}, {facts['precision']}, {facts['gflop']} GFLOP at {n}x{height}x{width}")
    click.echo(f"machine   {machine or f'cannot build here: {refusal}'}")
    click.echo(f"shapes    {', '.join(f'{k} {v}' for k, v in facts['render'].items())}")
    click.echo(f"target    {target}{' (exists)' if facts['exists'] else ''}")
    return None


@main.command("build", hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def build(arguments: tuple[str, ...]) -> None:
    """The same as `build-engine` alone."""
    main.main(list(arguments), prog_name="build-engine build", standalone_mode=False)


@main.command("list")
@cache_option
@json_option
def list_plans(cache: Path | None, as_json: bool) -> None:
    """Show the plans of the cache, the newest first."""
    from engine.trt.plan import PlanCache

    found = PlanCache(cache).records()
    if as_json:
        click.echo(json.dumps([{"folder": str(path), **record.to_dict()} for path, record in found], indent=2))
        return
    for path, record in found:
        click.echo(f"{path}\n  {_summary(record)}")
    if not found:
        click.echo(f"no plans in {PlanCache(cache).plans}: build-engine makes one")


@main.command()
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Delete every plan.")
@click.option("--model", help="Delete the plans of a model.")
@cache_option
def clean(keys: tuple[str, ...], everything: bool, model: str | None, cache: Path | None) -> None:
    """Delete plans: those named by KEYS (see `list`), of a model, or all."""
    from engine.trt.plan import PlanCache

    if not keys and not everything and model is None:
        raise click.UsageError("say which: KEYS, --model or --all")
    plans = PlanCache(cache)
    found = {path.name: (path, record) for path, record in plans.records()}
    for key in keys:
        if key not in found:
            raise click.UsageError(f"no plan {key}; there are {', '.join(found) or 'none'}")
    chosen = [p for k, (p, r) in found.items() if everything or k in keys or r.model == model]
    for path in chosen:
        plans.remove(path)
        click.echo(f"deleted {path}")
    if not chosen:
        click.echo("nothing to delete")


@main.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--gpu", default=0, show_default=True, type=click.IntRange(0))
@json_option
def inspect(plan: Path, gpu: int, as_json: bool) -> None:
    """Show the layers of PLAN: their types, and what was fused into them.

    PLAN is a plan folder, or one of the .plan files in it.  Needs a GPU that the plan was built for.
    """
    from engine.trt.inspect import describe, layers_of

    result = layers_of(plan, gpu)
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))


def _summary(record: PlanRecord) -> str:
    n, height, width = record.config.profile.opt
    checked = f", {record.psnr:.1f} dB" if record.psnr is not None else ""
    speed = f", {record.frames_per_second:.1f} tiles/s" if record.frames_per_second else ""
    return f"{record.model} {record.config.precision} {n}x{height}x{width} for {record.machine}{checked}{speed}"


class _progress_bar:
    """A tqdm bar that follows the phases of a build; nothing is shown where there is no terminal."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        from threading import Lock

        self._bar: Any = None
        self._phase = ""
        self._lock = Lock()
        return self._show

    def _show(self, phase: str, done: int, steps: int) -> None:
        from tqdm import tqdm

        with self._lock:
            if self._bar is None:
                self._bar = tqdm(total=steps, disable=None, leave=False, unit="step")
            if phase != self._phase:
                self._phase = phase
                self._bar.reset(total=steps)
                self._bar.set_description(phase)
            self._bar.n = done
            self._bar.refresh()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    main()
