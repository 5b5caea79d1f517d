"""Synchronous training without parameter servers: collective all-reduce.

Each worker has its own variables. They begin with the chief's values, and each
step adds the same gradient to them, the mean over the workers: TensorFlow's
CollectiveReduce passes it around a ring of workers, over gRPC, or by NCCL
between graphics cards. Worker i computes in a session of its own server.
"""

import os
from typing import List, NamedTuple, Sequence

from common.errors import InputError
from compat import tf
from deployment.hosts import Member

# Names in the graph of each worker. STOP: scalar to feed, 1 if this worker was
# asked to stop. STOPS: variable, the share of workers that had been asked to
# stop before the last step. BEGIN: operation that gives all workers the chief's
# variables.
STOP, STOPS = 'all_reduce/stop:0', 'all_reduce/stops:0'
BEGIN = 'all_reduce/begin'

# Keys of the two groups of devices: those that exchange gradients, and the
# processors. Instance keys count up from _OF_GRADIENTS, unique in a graph;
# ask_chief uses the key before.
_OF_GRADIENTS, _OF_PROCESSORS = 1, 2


class Group(NamedTuple):
  """The workers of which this process is one."""

  size: int
  index: int  # type: ignore[assignment]  # Hides tuple.index.

  def mean(self, tensors: Sequence[tf.Tensor],
           device: str) -> List[tf.Tensor]:
    """Returns the mean of each tensor over all workers.

    The step in which it is computed also assigns STOPS.

    Args:
      tensors: float32, with static shapes.
      device: device that holds them and exchanges them.
    """
    with tf.device('/device:CPU:0'):
      stop = tf.placeholder_with_default(0.0, [], name=STOP[:-2])
      stops = tf.Variable(0.0, trainable=False, collections=[],
                          use_resource=False, name=STOPS[:-2])
    with tf.name_scope('all_reduce/mean/'), tf.device(device):
      *means, asked = self._exchange([*tensors, stop], 'Div', _OF_GRADIENTS,
                                     _OF_GRADIENTS)
    with tf.control_dependencies([tf.assign(stops, asked)]):
      return [tf.identity(mean) for mean in means]

  def add_begin(self, variables: Sequence[tf.Variable]) -> None:
    """Adds BEGIN to the graph.

    Args:
      variables: in the same order on each worker.
    """
    types = sorted({v.dtype.base_dtype for v in variables}, key=str)
    assigned = []
    for number, dtype in enumerate(types):
      some = [v for v in variables if v.dtype.base_dtype == dtype]
      with tf.device('/device:CPU:0'):
        values = [tf.identity(v) if self.index == 0 else tf.zeros(
            v.shape, dtype) for v in some]
        values = self._exchange(values, 'Id', _OF_PROCESSORS,
                                _OF_GRADIENTS + 1 + number)
      assigned += [tf.assign(v, value).op for v, value in zip(some, values)]
    tf.group(*assigned, name=BEGIN)

  def ask_chief(self, answer: bool, target: str,
                config: tf.ConfigProto) -> bool:
    """Returns the chief's answer, once all workers have called this.

    Args:
      answer: of this worker; only the chief's counts.
      target: address of its server.
      config: tf.ConfigProto, as `session_config` returns it.
    """
    with tf.Graph().as_default(), tf.device(
        '/job:worker/task:%d/device:CPU:0' % self.index):
      value = tf.constant(float(answer and self.index == 0))
      total, = self._exchange([value], 'Id', _OF_PROCESSORS, _OF_GRADIENTS - 1)
      with tf.Session(target, config=config) as session:
        return bool(session.run(total))

  def _exchange(self, tensors, final, group_key, instance_key):
    """Returns the sums of tensors over the workers, in one exchange."""
    flat = tf.raw_ops.CollectiveReduce(
        input=tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0),
        group_size=self.size, group_key=group_key, instance_key=instance_key,
        merge_op='Add', final_op=final, subdiv_offsets=[0])
    parts = tf.split(flat, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape)
            for part, tensor in zip(parts, tensors)]


def session_config(config: tf.ConfigProto, index: int) -> tf.ConfigProto:
  """Returns the config of a worker's server and session.

  Args:
    config: tf.ConfigProto.
    index: number of the worker.
  """
  own = tf.ConfigProto()
  own.CopyFrom(config)
  own.isolate_session_state = True
  own.device_filters.append('/job:worker/task:%d' % index)
  own.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
  # Without cards, 1.15 would crash in the first exchange.
  own.experimental.collective_nccl = os.path.exists('/dev/nvidiactl')
  return own


def take_cards(member: Member, number: int) -> None:
  """Takes this process's share of the cards if others are on the same host.

  Call it before TensorFlow looks for cards.

  Args:
    member: the Member of this process.
    number: number of cards that it takes.

  Raises:
    InputError: there are fewer cards.
  """
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible in ('', '-1'):  # The cards are hidden.
    return
  cluster, task = member
  here = [other for other in cluster.workers if other.host == task.host]
  if len(here) > 1:
    first = here.index(task) * number
    cards = (visible.split(',') if visible else
             [str(card) for card in range(first + number)])
    if len(cards) < first + number:
      raise InputError(
          'CUDA_VISIBLE_DEVICES=%s has %d cards, but the %d workers on %s take '
          '--num_clones=%d each' % (visible, len(cards), len(here), task.host,
                                    number))
    # 1.15 would abort, without cards, if the config named them.
    os.environ['CUDA_VISIBLE_DEVICES'] = ','.join(cards[first:first + number])
