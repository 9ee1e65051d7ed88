import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.data import DATASETS, check_data, data_digest, describe_data, fetch_data
from harness.errors import SpecError
from harness.spec import DataSpec, TrainingSpec

SPEC = DataSpec(name="fashon_mnist", num_classes=10, channels=1, image_size=28, val_images=0)
TRAINING = TrainingSpec(lr=1e-3, batch_size=8, epochs=1)


def test_an_unknown_dataset_gets_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"data\.name: .* did you mean 'fashion_mnist'"):
        check_data(SPEC, TRAINING, data_dir=None)
    with pytest.raises(SpecError, match="known: fashion_mnist, cifar10"):
        data_digest(SPEC, TRAINING, data_dir=None)


def test_every_dataset_can_be_described_without_a_folder() -> None:
    assert [describe_data(name, None).name for name in DATASETS] == list(DATASETS)


def test_digests_and_descriptions_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from harness.data import *; [describe_data(name, None) for name in DATASETS]; "
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_what_ships_and_what_is_the_users_is_not_fetched() -> None:
    for name in ("fashion_mnist", "image_folder", "timm"):
        assert not list(fetch_data(SPEC.model_copy(update={"name": name}), None))
