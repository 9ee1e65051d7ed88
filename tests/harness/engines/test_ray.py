import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.engines.engine import Engine, Event, Job, Message, Resources, Returned, Started
from harness.engines.options import Setting
from harness.engines.ray import RayOptions
from tests.harness.engines.contract import EngineContract, Report

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator["Cluster"]:
    """Three hosts, which are processes of this one."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=2)
    yield made
    ray.shutdown()
    made.shutdown()


def start_counting(report: Report, folder: Path) -> int:
    """How often it was started; it waits for a file then."""
    number = len(list(folder.glob("start-*"))) + 1
    (folder / f"start-{number}").touch()
    report(number)
    while not ((folder / "go").exists() and number > 1):
        time.sleep(0.02)
    return number


class TestRayEngine(EngineContract):
    @pytest.fixture(autouse=True)
    def _on(self, cluster: "Cluster") -> None:
        self.cluster = cluster

    def make_engine(self, *, workers: int) -> Engine:
        return RayOptions(address=self.cluster.address, grace_seconds=0.2).build(Setting(workers, 1, (), None))

    def test_the_job_of_a_host_that_is_lost_starts_again_on_another(self, tmp_path: Path) -> None:
        host = self.cluster.add_node(num_cpus=4)
        job = Job("job", start_counting, (tmp_path,), resources=Resources(processes=4))
        events: list[Event] = []
        for event in self.make_engine(workers=1).execute([job]):
            events.append(event)
            if isinstance(event, Message) and event.payload == 1:
                other = self.cluster.add_node(num_cpus=4)
                self.cluster.remove_node(host)
                (tmp_path / "go").touch()
        assert [event.payload for event in events if isinstance(event, Message)] == [1, 2]
        assert sum(isinstance(event, Started) for event in events) == 2
        assert events[-1] == Returned("job", 2, "")
        self.cluster.remove_node(other)
