"""The ordered, finite list of (cell, replicate) of an experiment under its recipe, and parts of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.cell import Cell
from harness.errors import SpecError
from harness.initial import explain_mismatch, inherit
from harness.matching import Solution, explain_unsolved, solve_matches
from harness.placebo import FIRST_SEED, check_placebo, explain_missing_source, repeat_baseline
from harness.redundancy import differ_by_recipe, explain_repetition, find_repeated
from harness.resolve import check_fields, error_in_row, list_applied_recipes, resolve_row
from harness.rows import list_ablations, list_rows
from harness.spec import ExperimentSpec, LinearSpec, MlpSpec, RowSpec, Spec, TrainingSpec
from harness.tasks import TASKS
from paradigms.facts import unknown_name

FLOORS = ("Linear classifier", "One hidden layer")
"""The rows that a recipe with `floor_width` adds under every table."""


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table: its name and its cell.

    Attributes:
        is_floor: whether it is a model without attention.
        also_changes: declared differences from the baseline besides the row's levels.
        is_placebo: whether it is the baseline's cell again, with other seeds.
        solution: the size that `match` has solved.
    """

    name: str
    cell: Cell
    is_floor: bool = False
    also_changes: tuple[str, ...] = ()
    is_placebo: bool = False
    solution: Solution | None = None

    @property
    def first_seed(self) -> int:
        """The seed of replicate 0; every further replicate has the next seed."""
        return FIRST_SEED if self.is_placebo else 0


@dataclass(frozen=True)
class PlannedRun:
    """One (cell, seed): what `run_cell` executes."""

    row: PlannedRow
    seed: int

    @property
    def replicate(self) -> int:
        """The block of the table: runs of one replicate are compared with each other. A placebo has other seeds."""
        return self.seed - self.row.first_seed


@dataclass(frozen=True)
class SkippedRow:
    """A row that the recipe cannot run, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All rows and, replicate-major, all runs of an experiment under its recipe.

    Attributes:
        runs: all that may be trained; with `until_resolved`, open rows alone need them all.
        skipped: rows that have no runs.
        stated: all rows of the experiment by name, in the order of the table, with everything that they inherit.
        added: the names of further rows, such as those of a search.
    """

    spec: ExperimentSpec
    rows: tuple[PlannedRow, ...]
    runs: tuple[PlannedRun, ...]
    skipped: tuple[SkippedRow, ...] = ()
    stated: Mapping[str, RowSpec] = field(default_factory=dict)
    added: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All rows, those that are skipped too, in the order of the table; floors are left out."""
        return (*self.stated, *self.added)

    @property
    def placebo(self) -> PlannedRow | None:
        """The row that is the baseline again."""
        return next((row for row in self.rows if row.is_placebo), None)

    @property
    def trainings(self) -> tuple[TrainingSpec, ...]:
        """Every way in which a row is trained."""
        return tuple(dict.fromkeys(row.cell.training for row in self.rows))


def make_plan(spec: ExperimentSpec, *, is_derived: bool = False) -> Plan:
    """Resolve every row to its cell, and list the runs of all rows: seed 0 first, then seed 1, and so on.

    In this order, stopping early leaves a balanced table. These rows are skipped, and the baseline must not be one:

    * a row on a backbone that the recipe has no sizes for;
    * a row that starts from trained weights, if the recipe trains from scratch, and every other row if it does not;
    * one of two rows that are the same cell because of values that they state for this recipe;
    * a row of `ablate` that is impossible, such as a part that does not work without another, or that is the same cell
      as another row;
    * a row that is matched with one that the recipe does not train;
    * a placebo whose baseline starts from another row's runs: that row has none with the seeds of a placebo.

    Args:
        spec: the experiment.
        is_derived: whether a program, such as a search, has made the rows. Such rows may be the same cell or state
            fields without effect.

    Raises:
        SpecError: a row is an impossible combination, starts from weights that do not exist, states a field without
            effect, is the same cell as another row, or cannot be matched; or a placebo is more than that.
    """
    listed = list_rows(spec)
    check_placebo(spec, listed)
    matched, solutions = solve_matches(spec, listed, floors=FLOORS)
    stated = repeat_baseline({name: inherit(row, matched) for name, row in matched.items()}, spec.baseline)
    skipped = tuple(_find_skipped(spec, stated, solutions))
    ablated, planned, left_out = list_ablations(spec), list[PlannedRow](), {row.name for row in skipped}
    for name, row in stated.items():
        if name in left_out:
            continue
        try:
            cell = resolve_row(spec, spec.baseline if row.placebo else name, stated)
        except SpecError as error:
            if name not in ablated:
                raise
            skipped = (*skipped, SkippedRow(name, f"is impossible: {error.message}"))
        else:
            planned.append(
                PlannedRow(
                    name,
                    cell,
                    also_changes=row.also_changes,
                    is_placebo=row.placebo,
                    solution=solutions.get(name),
                )
            )
    if not is_derived:
        by_hand = [row for row in planned if not (row.is_placebo or row.name in ablated)]
        check_fields(spec, {row.name: (stated[row.name], row.cell) for row in by_hand})
        repeated = _find_repeated(spec, planned, stated)
        planned = [row for row in planned if row.name not in {row.name for row in repeated}]
        skipped = (*skipped, *repeated)
    rows = (*planned, *_floors(spec, stated))
    return Plan(spec, rows, _list_runs(spec, rows), skipped, stated)


def add_rows(plan: Plan, added: Sequence[PlannedRow | SkippedRow]) -> Plan:
    """The plan with further rows, in the order of the table, after its own and before the floors."""
    own, floors = ([row for row in plan.rows if row.is_floor == is_floor] for is_floor in (False, True))
    rows = (*own, *(row for row in added if isinstance(row, PlannedRow)), *floors)
    skipped = (*plan.skipped, *(row for row in added if isinstance(row, SkippedRow)))
    names = (*plan.added, *(row.name for row in added))
    return replace(plan, rows=rows, runs=_list_runs(plan.spec, rows), skipped=skipped, added=names)


def _list_runs(spec: ExperimentSpec, rows: Sequence[PlannedRow]) -> tuple[PlannedRun, ...]:
    """Where seeds are added until rows are resolved, these are the runs of rows that never are."""
    most = spec.until_resolved or spec.seeds
    counts = [spec.seeds if row.is_floor else most for row in rows]
    return tuple(
        PlannedRun(row, row.first_seed + replicate)
        for replicate in range(max(counts, default=0))
        for row, n in zip(rows, counts, strict=True)
        if replicate < n
    )


def _find_skipped(
    spec: ExperimentSpec, rows: Mapping[str, RowSpec], solutions: Mapping[str, Solution]
) -> Iterator[SkippedRow]:
    for name, row in rows.items():
        mismatch = explain_mismatch(spec, row) or explain_missing_source(row, rows)
        if mismatch is not None:
            yield SkippedRow(name, mismatch)
            continue
        reason = _explain_lacking(spec, row)
        if reason is not None:
            if name == spec.baseline:
                raise error_in_row(spec, name, reason)
            yield SkippedRow(name, reason)
            continue
        unsolved = explain_unsolved(row, solutions.get(spec.baseline if row.placebo else name), recipe=spec.recipe.name)
        if unsolved is not None and name == spec.baseline:
            raise error_in_row(spec, name, unsolved, "match")
        if unsolved is not None:
            yield SkippedRow(name, unsolved)


def _explain_lacking(spec: ExperimentSpec, row: RowSpec) -> str | None:
    """Which sizes of a row the recipe lacks, or the one that it starts from."""
    backbone, framework = row.backbone or spec.cell.backbone, row.framework or spec.cell.framework
    for recipe in list_applied_recipes(spec):
        if getattr(recipe.backbones, backbone) is None:
            return f"recipe {recipe.name!r} has no sizes for backbone {backbone!r}"
    usable = TASKS[spec.recipe.data.task].frameworks  # any other is an error in the row
    if framework in usable and getattr(spec.recipe.frameworks, framework) is None:
        return f"recipe {spec.recipe.name!r} has no sizes for framework {framework!r}"
    return None


def _find_repeated(
    spec: ExperimentSpec, planned: Sequence[PlannedRow], stated: Mapping[str, RowSpec]
) -> list[SkippedRow]:
    """The rows to skip since another row has their cell under this recipe; an error where it is so under every one."""
    skipped, recipe, ablated = [], spec.recipe.name, list_ablations(spec)
    cells = [(row.name, row.cell.id) for row in planned if not row.is_placebo]
    for name, kept in find_repeated(cells, baseline=spec.baseline):
        if name in ablated:
            skipped.append(SkippedRow(name, f"is row {kept!r}"))
            continue
        reason = explain_repetition(kept, recipe)
        if not differ_by_recipe(stated[name], stated[kept]):
            raise error_in_row(spec, name, f"{reason}, and a table would count it twice")
        skipped.append(SkippedRow(name, reason))
    return skipped


def _floors(spec: ExperimentSpec, rows: Mapping[str, RowSpec]) -> Iterator[PlannedRow]:
    """Models without attention on the same images: a table below them measures early optimization."""
    recipe = spec.recipe
    if recipe.floor_width is None:
        return
    sizes: tuple[tuple[str, Spec], ...] = (("linear", LinearSpec()), ("mlp", MlpSpec(width=recipe.floor_width)))
    for name, (backbone, size) in zip(FLOORS, sizes, strict=True):
        if name in rows:
            raise spec.error("the name of a floor of the recipe; choose another", "rows", name)
        yield PlannedRow(name, Cell(backbone, size, (), (), recipe.data, recipe.training), is_floor=True)


def find_row(plan: Plan, name: str) -> PlannedRow:
    """A row by its name; floors have theirs.

    Raises:
        SpecError: the plan has no such row, or skips it; the message tells the nearest and all of them, or the reason.
    """
    rows = {row.name: row for row in plan.rows}
    for row in plan.skipped:
        if row.name == name:
            raise SpecError(f"row {name!r} is skipped: {row.reason}", path=plan.spec.path)
    if name not in rows:
        raise SpecError(unknown_name("row", name, tuple(rows)), path=plan.spec.path)
    return rows[name]


def select_rows(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan of some rows alone, in the plan's order; of all where no name is given.

    Args:
        plan: of the whole experiment.
        names: of rows or floors, also several in one text with commas between them; a name may have commas itself.

    Raises:
        SpecError: there is no such row.
    """
    if not names:
        return plan
    known = [row.name for row in plan.rows]
    chosen = {find_row(plan, name).name for text in names for name in _split_names(text, known)}
    return replace(
        plan,
        rows=tuple(row for row in plan.rows if row.name in chosen),
        runs=tuple(run for run in plan.runs if run.row.name in chosen),
    )


def select_seeds(plan: Plan, seeds: tuple[int, int] | None) -> Plan:
    """The plan of some replicates alone; of all where None is given.

    Args:
        plan: of the whole experiment, or of some rows.
        seeds: the first and the last replicate.

    Raises:
        SpecError: the plan has no such replicates.
    """
    if seeds is None:
        return plan
    first, last = seeds
    count = 1 + max((run.replicate for run in plan.runs), default=-1)
    if not first <= last < count:
        message = f"the plan has the seeds 0 to {count - 1}; `--set seeds={last + 1}` adds more"
        raise SpecError(message, key=f"--seeds {first}-{last}")
    return replace(plan, runs=tuple(run for run in plan.runs if first <= run.replicate <= last))


def _split_names(text: str, known: Sequence[str]) -> Iterator[str]:
    """Names between commas, at each place the longest that is known."""
    while text:
        fitting = [name for name in known if text == name or text.startswith(f"{name},")]
        name = max(fitting, key=len) if fitting else text.partition(",")[0]
        yield name.strip()
        text = text[len(name) :].removeprefix(",").lstrip()
