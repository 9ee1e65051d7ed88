import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.batch import Objects
from harness.data import check_data, fashion_mnist, fashion_scenes, scenes
from harness.data.part import take_part
from harness.data.scene_data import SceneData
from harness.data.scenes import MAX_ITEMS, THRESHOLD, Scenes, compose_scenes, resize_picture
from harness.division import list_positions
from harness.errors import DataError
from harness.ranks import Ranks
from harness.rehearsal import Visit, VisitedData
from harness.seeding import seed_for
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

CPU = torch.device("cpu")
BATCH = 10


def _spec(**values: object) -> DataSpec:
    stated = {"name": "fashion_scenes", "task": "detection", "num_classes": 10, "channels": 1, "image_size": 128}
    counts = {"train_images": 35, "val_images": 20, "test_images": 5}
    return DataSpec.model_validate({**stated, **counts, **values})


def _training(**augmentation: object) -> TrainingSpec:
    return TrainingSpec(lr=1e-3, batch_size=BATCH, epochs=1, augmentation=AugmentationSpec.model_validate(augmentation))


def _load(spec: DataSpec, *, replicate: int = 0, **augmentation: object) -> SceneData:
    data = fashion_scenes.load_data(spec, _training(**augmentation), replicate=replicate, data_dir=None, device=CPU)
    assert isinstance(data, SceneData)
    return data


@pytest.fixture(scope="module", autouse=True)
def _decoded_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fashion_mnist, "read_arrays", cache(fashion_mnist.read_arrays))
        yield


@pytest.fixture(scope="module")
def data() -> SceneData:
    return _load(_spec())


@pytest.fixture(scope="module")
def train(data: SceneData) -> Scenes:
    return data.splits.train


def _digest(composed: Scenes) -> str:
    digest = hashlib.sha256()
    for array in (composed.images, composed.instances, composed.boxes.astype("<i2"), composed.labels, composed.counts):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def assert_equal_objects(found: tuple[Objects, ...], expected: tuple[Objects, ...]) -> None:
    assert len(found) == len(expected)
    for first, second in zip(found, expected, strict=True):
        assert first.size == second.size
        for one, other in zip(first[1:], second[1:], strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("split", "digest"), [("train", "b0b7427f2fc2e3ba"), ("val", "d363c24e7c3ae393"), ("test", "778e6b1aa338332c")]
)
def test_a_seed_gives_the_same_bytes_on_every_machine(data: SceneData, split: str, digest: str) -> None:
    assert _digest(getattr(data.splits, split)) == digest


def test_the_pinned_scenes_are_of_the_stated_composition() -> None:
    assert scenes.COMPOSITION == 1, "pin the digests above again"


def test_masks_are_those_pixels_of_items_that_are_above_the_threshold(train: Scenes) -> None:
    assert (train.images[train.instances > 0] > THRESHOLD).all()


def test_boxes_are_tight_and_rows_beyond_the_count_are_empty(train: Scenes) -> None:
    for number, count in enumerate(train.counts):
        assert sorted(set(np.unique(train.instances[number])) - {0}) == list(range(1, count + 1))
        for position in range(count):
            rows, columns = np.nonzero(train.instances[number] == position + 1)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert train.boxes[number, position].tolist() == tight
        assert not train.boxes[number, count:].any()
        assert not train.labels[number, count:].any()


def test_every_number_of_objects_and_every_class_occurs() -> None:
    composed = _load(_spec(train_images=300)).splits.train
    assert set(composed.counts) == set(range(1, MAX_ITEMS + 1))
    used = np.arange(MAX_ITEMS) < composed.counts[:, None]
    assert set(composed.labels[used]) == set(range(10))


def test_later_items_hide_earlier_ones_and_those_that_are_hidden_are_no_objects() -> None:
    """White squares as large as a picture: of each item the visible pixels can be counted."""
    pictures = np.full((1, 28, 28), 255, np.uint8)
    composed = compose_scenes(pictures, np.zeros(1, np.uint8), range(200), size=64)
    hidden = 0
    for number, seed in enumerate(range(200)):
        generator = np.random.default_rng(seed)
        image = scenes._make_background(pictures, generator, 64)
        drawn, items, num_pixels = scenes._paste_items(image, pictures, generator)
        visible = np.bincount(drawn.ravel(), minlength=len(items) + 1)[1:]
        assert visible[-1] == num_pixels[-1]
        is_object = (visible >= 32) & (visible >= num_pixels / 4)
        hidden += np.sum(~is_object)
        kept = np.bincount(composed.instances[number].ravel(), minlength=1)[1:]
        assert kept.tolist() == visible[is_object].tolist()
    assert hidden > 20


def test_semantic_maps_are_classes_of_visible_pixels(train: Scenes) -> None:
    maps = train.make_semantic_maps()
    for number, count in enumerate(train.counts):
        expected = np.zeros((128, 128), np.uint8)
        for position in range(count):
            expected[train.instances[number] == position + 1] = train.labels[number, position] + 1
        assert np.array_equal(maps[number], expected)


@pytest.mark.parametrize("side", [20, 28, 37, 56])
def test_pictures_are_resized_by_bilinear_interpolation(side: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(picture)[None, None].double(), size=(side, side), mode="bilinear", align_corners=False
    )[0, 0]
    torch.testing.assert_close(
        torch.from_numpy(resize_picture(picture, side)).double(), expected, rtol=0, atol=0.5 + 1e-9
    )


def test_training_validation_and_test_scenes_share_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture has its own content here, so that the pictures that the three splits draw from can be compared."""
    drawn: list[set[bytes]] = []

    def compose(pictures: np.ndarray, classes: np.ndarray, seeds: list[int], *, size: int) -> Scenes:
        assert len(pictures) == len(classes)
        drawn.append({picture.tobytes() for picture in pictures})
        return compose_scenes(pictures[:1], classes[:1], seeds[:1], size=size)

    numbered = np.zeros((70_000, 1, 28, 28), np.uint8)
    numbered.reshape(70_000, -1)[:, :4] = np.arange(70_000, dtype="<u4").view(np.uint8).reshape(-1, 4)
    splits = {"train": numbered[:60_000], "test": numbered[60_000:]}
    monkeypatch.setattr(
        fashion_mnist, "read_arrays", lambda _dir, split: (splits[split], np.zeros(len(splits[split]), np.uint8))
    )
    monkeypatch.setattr(fashion_scenes, "compose_scenes", compose)
    fashion_scenes.compose_splits(_spec(), replicate=0, data_dir=None)
    train, val, test = drawn
    assert (len(train), len(val), len(test)) == (50_000, 10_000, 10_000)
    assert len(train | val | test) == 70_000


def test_seeds_are_named_after_split_and_number(data: SceneData) -> None:
    pictures, classes = fashion_mnist.read_arrays(None, "test")
    single = compose_scenes(pictures[:, 0], classes, [seed_for("scene", "test", 3)], size=128)
    assert np.array_equal(single.images[0], data.splits.test.images[3])


def test_fewer_scenes_are_the_first_ones(data: SceneData) -> None:
    few = _load(_spec(train_images=BATCH, val_images=1, test_images=2)).splits
    for split in ("train", "val", "test"):
        found, expected = getattr(few, split), getattr(data.splits, split)
        assert np.array_equal(found.images, expected.images[: len(found.counts)])


def test_only_a_recipe_that_resamples_trains_each_replicate_on_its_own_scenes(data: SceneData) -> None:
    same = _load(_spec(), replicate=1).splits
    first, second = (_load(_spec(resample_train=True), replicate=replicate).splits for replicate in (0, 1))
    assert np.array_equal(same.train.images, data.splits.train.images)
    images = [split.train.images for split in (first, second)]
    assert not (images[0] == images[1]).all(axis=(1, 2)).any()
    assert not (images[0] == data.splits.train.images).all(axis=(1, 2)).any()
    for split in ("val", "test"):
        assert np.array_equal(getattr(first, split).images, getattr(second, split).images)
        assert np.array_equal(getattr(first, split).images, getattr(data.splits, split).images)


def test_batches_are_normalized_images_and_a_tuple_of_objects(data: SceneData) -> None:
    batches = list(data.train_batches(1))
    assert len(batches) == data.steps_per_epoch == 3
    for images, objects in batches:
        assert images.shape == (BATCH, 1, 128, 128)
        assert images.dtype == torch.float32
        assert len(objects) == BATCH
        for each in objects:
            assert isinstance(each, Objects)
            count = len(each.labels)
            assert each.size == (128, 128)
            assert each.boxes.shape == (count, 4)
            assert each.masks.shape == (count, 128, 128)
            assert each.masks.sum(0).max() <= 1
            assert (each.boxes.dtype, each.labels.dtype, each.masks.dtype) == (torch.float32, torch.int64, torch.bool)
            assert each.crowd.tolist() == [False] * count


def test_objects_keep_their_image(data: SceneData, train: Scenes) -> None:
    known = {image.tobytes(): number for number, image in enumerate(train.images)}
    for images, objects in data.train_batches(1):
        pixels = (images * 255 * fashion_scenes.STD + 255 * fashion_scenes.MEAN).round().to(torch.uint8)
        for image, each in zip(pixels, objects, strict=True):
            number = known[image.numpy().tobytes()]
            assert each.labels.tolist() == train.labels[number, : train.counts[number]].tolist()
            for position, mask in enumerate(each.masks, start=1):
                assert np.array_equal(mask.numpy(), train.instances[number] == position)


def test_evaluation_sees_every_scene_once_in_order_and_unchanged() -> None:
    data = _load(_spec(), hflip=1.0)
    for batches, expected in ((data.val_batches(), data.splits.val), (data.test_batches(), data.splits.test)):
        found = list(batches)
        assert [len(images) for images, _ in found] == ([16, 4] if expected is data.splits.val else [5])
        pixels = torch.cat([images for images, _ in found])[:, 0]
        wanted = (torch.from_numpy(expected.images).float() / 255 - fashion_scenes.MEAN) / fashion_scenes.STD
        torch.testing.assert_close(pixels, wanted)
        objects = [each for _, batch in found for each in batch]
        assert [len(each.labels) for each in objects] == expected.counts.tolist()
        for number, each in enumerate(objects):
            assert np.array_equal(each.boxes.numpy(), expected.boxes[number, : expected.counts[number]])


def test_a_flip_mirrors_image_boxes_and_masks(data: SceneData) -> None:
    for (images, objects), (plain, expected) in zip(
        _load(_spec(), hflip=1.0).train_batches(1), data.train_batches(1), strict=True
    ):
        assert torch.equal(images, plain.flip(-1))
        for each, other in zip(objects, expected, strict=True):
            assert torch.equal(each.masks, other.masks.flip(-1))
            assert torch.equal(each.labels, other.labels)
            for mask, box in zip(each.masks, each.boxes, strict=True):
                rows, columns = torch.nonzero(mask, as_tuple=True)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_each_scene_is_flipped_by_itself(data: SceneData) -> None:
    flipped = [
        not torch.equal(image, other)
        for (images, _), (plain, _) in zip(
            _load(_spec(), hflip=0.5).train_batches(1), data.train_batches(1), strict=True
        )
        for image, other in zip(images, plain, strict=True)
    ]
    assert 5 < sum(flipped) < 25


@pytest.mark.parametrize("first", [1, 2, 3])
def test_an_epoch_that_begins_later_has_the_same_batches(first: int) -> None:
    data = _load(_spec(), hflip=0.5)
    whole, rest = list(data.train_batches(2))[first:], list(data.train_batches(2, first))
    assert len(rest) == len(whole) == 3 - first
    for (images, objects), (expected, wanted) in zip(rest, whole, strict=True):
        assert torch.equal(images, expected)
        assert_equal_objects(objects, wanted)


def test_order_follows_replicate_and_epoch_alone(data: SceneData) -> None:
    def order(loaded: SceneData, epoch: int) -> torch.Tensor:
        return torch.cat([images[:, 0, ::16, ::16] for images, _ in loaded.train_batches(epoch)])

    torch.manual_seed(99)
    assert torch.equal(order(data, 3), order(_load(_spec()), 3))
    assert not torch.equal(order(data, 3), order(data, 4))
    assert not torch.equal(order(data, 3), order(_load(_spec(), replicate=1), 3))


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_rank_reads_its_part_of_every_batch(world_size: int) -> None:
    data = _load(_spec(), hflip=0.5)
    whole, evaluated = list(data.train_batches(2)), list(data.val_batches())
    for rank in range(world_size):
        part = take_part(data, Ranks(CPU, rank, world_size))
        positions = list_positions(BATCH, part=rank, num_parts=world_size)
        for (images, objects), (expected, wanted) in zip(part.train_batches(2, 1), whole[1:], strict=True):
            assert torch.equal(images, expected[positions])
            assert_equal_objects(objects, tuple(wanted[position] for position in positions))
        for (images, objects), (expected, wanted) in zip(part.val_batches(), evaluated[rank::world_size], strict=True):
            assert torch.equal(images, expected)
            assert_equal_objects(objects, wanted)


def test_a_rehearsal_visits_some_scenes_and_digests_their_objects(data: SceneData) -> None:
    def visit(visited: SceneData) -> VisitedData:
        rehearsed = VisitedData(visited, Visit(steps=2, val_images=17))
        assert len(list(rehearsed.train_batches(1))) == 2
        assert [(len(images), len(objects)) for images, objects in rehearsed.val_batches()] == [(16, 16), (1, 1)]
        return rehearsed

    first, other = visit(data), _load(_spec())
    other.splits.val.labels[0, 0] += 1
    other.splits.train.labels[:, 0] += 1
    changed = visit(other)
    assert changed.evaluated["val"] != first.evaluated["val"]
    assert not set(changed.batches[1]) & set(first.batches[1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_images": None}, r"data\.train_images: .* state their number"),
        ({"val_images": 0}, r"data\.val_images: .* state their number"),
        ({"test_images": None}, r"data\.test_images: .* state their number"),
        ({"train_images": 9}, r"training\.batch_size: 10 is more than the 9 scenes"),
        ({"image_size": 63}, r"data\.image_size: scenes have at least 64 pixels a side, got 63"),
        ({"num_classes": 11}, r"data\.num_classes: fashion_scenes has 10"),
        ({"channels": 3}, r"data\.channels: fashion_scenes has 1"),
    ],
    ids=str,
)
def test_what_scenes_cannot_give_is_one_clear_message(values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fashion_scenes.check_data(_spec(**values), _training(), data_dir=None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"task": "classification"},
            "classification needs one label for each image, fashion_scenes has objects in each image",
        ),
        (
            {"name": "fashion_mnist", "image_size": 28},
            "detection needs objects in each image, fashion_mnist has one label for each image",
        ),
    ],
    ids=["scenes to classify", "objects in pictures"],
)
def test_a_task_gets_the_truth_that_it_needs(values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=rf"^data\.task: {message}$"):
        check_data(_spec(**values), _training(), data_dir=None)


OTHERS = {
    "shift": 2,
    "reprob": 0.1,
    "erasing": "after_mixing",
    "scale": (0.5, 1.0),
    "interpolation": "bicubic",
    "auto_augment": "rand-m9",
    "color_jitter": 0.4,
    "mixup": 0.2,
    "cutmix": 1.0,
}


@pytest.mark.parametrize(("field", "value"), OTHERS.items())
def test_every_augmentation_but_the_flip_is_refused(field: str, value: object) -> None:
    with pytest.raises(DataError, match=rf"training\.augmentation\.{field}: the images of fashion_scenes"):
        fashion_scenes.check_data(_spec(), _training(**{field: value}), data_dir=None)


def test_no_augmentation_is_forgotten() -> None:
    assert {*OTHERS, "hflip"} == set(AugmentationSpec.model_fields)


def test_a_recipe_that_states_what_it_wants_is_accepted() -> None:
    fashion_scenes.check_data(_spec(), _training(hflip=0.5), data_dir=None)


def test_the_digest_covers_files_and_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fashion_scenes.digest_files(None, _spec())
    assert before != fashion_mnist.digest_files(None)
    monkeypatch.setattr(fashion_scenes, "COMPOSITION", 0)
    assert fashion_scenes.digest_files(None, _spec()) != before


def test_scenes_are_described_with_their_number() -> None:
    found = fashion_scenes.describe(None, _spec())
    assert (found.name, found.usable) == ("fashion_scenes", True)
    assert (found.num_train, found.num_test) == (55, 5)
    assert found.digest == fashion_scenes.digest_files(None)
    assert fashion_scenes.describe(None).num_train == fashion_mnist.NUM_TRAIN


def test_a_folder_without_the_files_is_reported(tmp_path: Path) -> None:
    assert not fashion_scenes.describe(tmp_path).usable
    with pytest.raises(DataError, match="missing"):
        fashion_scenes.check_data(_spec(), _training(), data_dir=tmp_path)


def test_the_constants_are_those_of_training_scenes() -> None:
    images = _load(_spec(train_images=400)).splits.train.images
    assert images.mean() / 255 == pytest.approx(fashion_scenes.MEAN, abs=0.01)
    assert images.std() / 255 == pytest.approx(fashion_scenes.STD, abs=0.01)
