"""Two clients that send the worst photos, and what another one sees of it."""

import colors_graph
import pytest
import server_load_kit as load_kit
import serving_kit as kit

from benchmarks import hostile_load, server_load

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def process(tmp_path_factory):
  graph = colors_graph.write(tmp_path_factory.mktemp('graph'))
  with load_kit.Process('--model_name=%s' % graph) as server:
    yield server.wait_until_it_listens()


@pytest.mark.parametrize('name, count', [
    ('PNG, 1 bit', 1), ('PNG, 1 bit', 16), ('PNG, alpha', 1)])
def test_other_client_is_answered_beside_two_attackers(process, name, count):
  kind, = (kind for kind in hostile_load.kinds([name]) if kind.photos == count)
  requests = [server_load.to_request(kit.make_photo(0))]
  effect = hostile_load.measure(process.process.pid, process.port, kind,
                                requests, seconds=6)
  assert effect.refused == 0
  assert effect.p95 < 3
