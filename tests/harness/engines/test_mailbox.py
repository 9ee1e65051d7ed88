from pathlib import Path

from harness.engines.mailbox import Receiver, Sender


def test_frames_arrive_in_order_and_once(tmp_path: Path) -> None:
    sender, receiver = Sender(tmp_path), Receiver(tmp_path)
    sender.send(1)
    assert list(receiver.receive()) == [1]
    sender.send({"two": 2})
    sender.send(3)
    assert list(receiver.receive()) == [{"two": 2}, 3]
    assert list(receiver.receive()) == []


def test_half_a_frame_waits_for_its_rest(tmp_path: Path) -> None:
    Sender(tmp_path).send("whole")
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    receiver = Receiver(tmp_path)
    for end in (4, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert list(receiver.receive()) == []
    path.write_bytes(whole)
    assert list(receiver.receive()) == ["whole"]


def test_a_new_attempt_follows_the_one_that_was_broken_off(tmp_path: Path) -> None:
    Sender(tmp_path).send("first")
    receiver = Receiver(tmp_path)
    with next(tmp_path.iterdir()).open("ab") as file:
        file.write(b"half")
    Sender(tmp_path).send("second")
    assert list(receiver.receive()) == ["first", "second"]


def test_a_late_reader_starts_with_the_newest_attempt(tmp_path: Path) -> None:
    for payload in ("first", "second"):
        Sender(tmp_path).send(payload)
    assert list(Receiver(tmp_path).receive()) == ["second"]
