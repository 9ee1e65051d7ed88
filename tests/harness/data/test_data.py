import subprocess
import sys

import pytest

from harness.data import DATASETS, check_data, data_digest, describe_data
from harness.errors import SpecError
from harness.spec import DataSpec, TrainingSpec

SPEC = DataSpec(name="fashon_mnist", num_classes=10, channels=1, image_size=28, val_images=0)


def test_an_unknown_dataset_gets_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"data\.name: .* did you mean 'fashion_mnist'"):
        check_data(SPEC, TrainingSpec(lr=1e-3, batch_size=8, epochs=1), data_dir=None)
    with pytest.raises(SpecError, match="known: fashion_mnist, image_folder"):
        data_digest(SPEC, None)


def test_every_dataset_can_be_described_without_a_folder() -> None:
    assert [describe_data(name, None).name for name in DATASETS] == list(DATASETS)


def test_digests_and_descriptions_need_no_torch() -> None:
    code = (
        "import sys; from harness.data import *; [describe_data(name, None) for name in DATASETS]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
