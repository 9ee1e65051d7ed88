"""Edits that leave every number as it is."""

from tests.edits.copies import Change, Edit, edit

NEW_LEVEL = '''"""Softmax of logits that are twice as large."""

from paradigms.normalization.softmax import Softmax


class Doubled(Softmax):
    """Weights that differ more."""

    kind = "doubled"

    def __call__(self, logits, valid):
        """Normalize over the last axis."""
        return super().__call__(2 * logits, valid)
'''

_CHECK_WEIGHTS = """\
    def _check_weights(self) -> None:
        module = find_module(dict(self.model.named_parameters()))
        if module is not None:
            raise Diverged("a weight is not finite", step=self.step - 1, cause=Cause.WEIGHT, module=module)
"""

_CHECK_VALIDATION = """\
    def _check_validation(self, validated: Evaluation) -> None:
        for name, score in validated.scores.items():
            if not math.isfinite(score):
                raise Diverged(f"the validation {name} is {score}", step=self.step - 1, cause=Cause.VALIDATION)
"""

HARMLESS = (
    edit("a local variable is renamed", "harness/train.py", "norm_value", "length", times=3),
    edit(
        "two methods change places",
        "harness/train.py",
        f"{_CHECK_WEIGHTS}\n{_CHECK_VALIDATION}",
        f"{_CHECK_VALIDATION}\n{_CHECK_WEIGHTS}",
    ),
    edit("an error message is reworded", "harness/train.py", "a weight is not finite", "a weight is infinite or NaN"),
    edit(
        "a docstring is reworded",
        "harness/train.py",
        '"""Train epoch by epoch."""',
        '"""Train one epoch after the other."""',
        is_in_digest=False,
    ),
    edit(
        "a comment is added",
        "harness/optim.py",
        "    scale = _find",
        "    # both\n    scale = _find",
        is_in_digest=False,
    ),
    edit("a private class is renamed", "harness/train.py", "_TrainedEpoch", "_EpochOfTraining", times=5),
    edit("a type annotation is added", "harness/optim.py", "    scale = _find", "    scale: float = _find"),
    edit("a function is added", "harness/evaluate.py", "", "\n\ndef count_modules(model):\n    return 1\n"),
    edit(
        "an argument with a default is added",
        "harness/data/augmentation.py",
        "*, mean: float, std: float) -> Float",
        "*, mean: float, std: float, copy: bool = True) -> Float",
    ),
    edit(
        "an expression is rewritten",
        "harness/optim.py",
        "return step // self.interval * self.interval",
        "return step - step % self.interval",
    ),
    edit(
        "a sum becomes a loop",
        "paradigms/kernels/sliding_window.py",
        "    return sum(parts[1:], start=parts[0])",
        "    total = parts[0]\n    for part in parts[1:]:\n        total = total + part\n    return total",
        cell="sliding",
    ),
    edit(
        "a conversion is written otherwise",
        "harness/data/augmentation.py",
        "images.float().sub_(",
        "images.to(torch.float32).sub_(",
    ),
    edit(
        "an import gets another name",
        "harness/data/memory.py",
        "import numpy as np\nimport torch\n",
        "import numpy\nimport numpy as np\nimport torch\n",
    ),
    edit(
        "a set is listed in another order",
        "paradigms/kernels/__init__.py",
        '"zero", "mask", "shift"}',
        '"shift", "mask", "zero"}',
    ),
    Edit(
        "a level is added to a room",
        (
            Change("paradigms/normalization/doubled.py", "", NEW_LEVEL),
            Change(
                "paradigms/normalization/__init__.py",
                "from paradigms.normalization.filter_norm",
                "from paradigms.normalization.doubled import Doubled\nfrom paradigms.normalization.filter_norm",
            ),
            Change(
                "paradigms/normalization/__init__.py",
                '    "identity": Identity,\n',
                '    "identity": Identity,\n    "doubled": Doubled,\n',
            ),
            Change(
                "paradigms/facts.py",
                '    "identity": Facts(),\n',
                '    "identity": Facts(),\n    "doubled": Facts(),\n',
            ),
        ),
        is_in_digest=False,
    ),
    edit(
        "another level computes something else",
        "paradigms/normalization/filter_norm.py",
        "math.sqrt(2 / logits",
        "math.sqrt(3 / logits",
        is_in_digest=False,
    ),
    edit(
        "another neighborhood computes something else",
        "paradigms/neighborhood/sliding_window.py",
        "return (1, 1)",
        "return (2, 2)",
        is_in_digest=False,
    ),
    edit(
        "another backbone draws something else",
        "paradigms/backbones/volo.py",
        "trunc_normal_(parameter, std=0.02)",
        "trunc_normal_(parameter, std=0.03)",
        is_in_digest=False,
    ),
    edit(
        "another dataset is read otherwise",
        "harness/data/cifar.py",
        "import numpy as np\n",
        "import numpy as np\n\nSCALE = 2\n",
        is_in_digest=False,
    ),
    edit(
        "a Triton kernel sums otherwise",
        "paradigms/kernels/triton_kernels/attention.py",
        "MAX_CHUNKS = 64",
        "MAX_CHUNKS = 32",
    ),
    edit(
        "Triton kernels have more warps", "paradigms/kernels/triton_kernels/tile.py", "NUM_WARPS = 4", "NUM_WARPS = 8"
    ),
    edit(
        "the kernel in torch has larger parts",
        "paradigms/kernels/halo.py",
        'PART_BYTES = {"cpu": 2**22}',
        'PART_BYTES = {"cpu": 2**20}',
        cell="sliding",
    ),
    edit(
        "the dense kernel computes something else",
        "paradigms/kernels/dense.py",
        "return join_terms(terms",
        "return 2 * join_terms(terms",
        cell="sliding",
    ),
    edit(
        "a rehearsal is written otherwise",
        "harness/rehearsal.py",
        "_to_plain",
        "_simplify",
        times=3,
        is_in_digest=False,
    ),
    edit(
        "a forecast is computed otherwise",
        "harness/rehearsal.py",
        "return prepared + training.schedule.epochs * epoch",
        "return 2 * prepared + training.schedule.epochs * epoch",
        is_in_digest=False,
    ),
    edit(
        "a column has another title",
        "harness/table/columns/costs.py",
        'title="params"',
        'title="parameters"',
        is_in_digest=False,
    ),
)
