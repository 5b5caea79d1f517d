"""Training of the head of a network on cached backbone features."""

import contextlib
import os
from typing import Any, Callable, Dict, Optional, Sequence

from common.errors import InputError
from compat import tf
from runs import feature_cache, run_info
from runtime import forward_pass
from training import (
  exact_head,
  head_graph,
  head_loop,
  loop,
  start,
  warm_start,
)
from training.config import TrainConfig


def train(run: start.Run,
          init_fn: Callable[
              [start.Run], Optional[warm_start.InitFn]] = start.init_fn,
          ends: Sequence[str] = (), **arguments: Any) -> bool:
  """Computes missing features, and trains the head on them.

  Args:
    run: start.Run; if run.datasets has 'validation', it is used to evaluate.
    init_fn: function of the run that returns the function that restores the
      initial weights; it is called once the graph is built.
    ends: names of the operations whose outputs are cached, if layers below the
      head are trained too. The head is then trained by gradient descent.
    **arguments: others of training.graph.build.

  Returns:
    True if training finished, False if it was asked to stop.

  Raises:
    InputError: no backbone is frozen, or there are several clones or workers.
  """
  config = run.config
  for name in ('num_clones', 'worker_replicas'):
    number = getattr(config.replicas, name)
    if number > 1:
      raise InputError('--cache_features needs one clone and one worker, got '
                       '--%s=%d; give --nocache_features' % (name, number))
  with tf.Graph().as_default(), contextlib.ExitStack() as stack:
    tf.set_random_seed(config.seed)
    graph = head_graph.build(
        config, run.datasets, run.info, run.network, run.trainable_scopes,
        run.session_config, ends, **arguments)
    stack.callback(graph.twin.close)
    read_weights = init_fn(run)
    facts = cache_facts(run, bool(ends))
    history = start.validation_history(run, graph.training.global_step)
    if not history.is_over(config.early_stop_evals):
      head_loop.check_room_for_first(graph.backbone.cut, run.datasets,
                                     cache_dir(config), facts,
                                     config.cache_views)
      start.save_facts(run)
    make_caches = head_loop.caches_of(
        graph.backbone, run.datasets, cache_dir(config), facts,
        config.cache_views, _view_key(config))

    def open_caches(session):
      caches, forward = _open_caches(run, graph, make_caches, session)
      feature_cache.save_use(config.train_dir, feature_cache.Use(
          [tensor.name for tensor in graph.backbone.cut.features],
          [v.op.name for v in graph.backbone.variables],
          {split: os.path.abspath(cache.folder)
           for split, cache in caches.items()}))
      return caches, forward

    finished = loop.run(
        graph.training, config.train_dir,
        init_fn=read_weights,
        number_of_steps=config.max_number_of_steps,
        log_every_n_steps=config.log_every_n_steps,
        save_summaries_secs=config.save_summaries_secs,
        save_interval_secs=config.save_interval_secs,
        session_config=run.session_config,
        make_step=lambda stop: _make_step(run, stop, graph, open_caches,
                                          history, bool(ends)))
  return finished


def cache_dir(config: TrainConfig) -> str:
  """Returns the folder of the caches of a run."""
  return config.feature_cache_dir or head_loop.default_cache_dir(
      config.dataset_dir, config.dataset_name)


def cache_facts(run: start.Run, trains_blocks: bool) -> Dict[str, Any]:
  """Returns the facts of a run in the keys of its caches.

  Args:
    run: start.Run.
    trains_blocks: whether layers below the head are trained. Their input is
      large, and is cached with half as many bits.
  """
  facts = feature_cache.facts_of_run(run.info)
  return dict(facts, dtype='float16') if trains_blocks else facts


def _make_step(run, stop, graph, open_caches, history, trains_blocks):
  if run.info.head is None or trains_blocks:
    return head_loop.HeadStep(stop, graph, open_caches, history, run.config)
  return exact_head.ExactHeadStep(stop, graph, open_caches, history, run)


def _open_caches(run, graph, make_caches, session):
  """Returns the caches, and the ForwardPass for what they lack or None.

  Args:
    run: start.Run.
    graph: HeadGraph.
    make_caches: result of head_loop.caches_of.
    session: of the run.
  """
  options = start.forward_options(run.config, run.session_config)
  choice = forward_pass.choose(options, run.info.precision)
  caches_of_choice = make_caches(session)
  choices = [choice]
  if options.runtime == forward_pass.AUTO:
    # Those of an older version, or of a network that OpenVINO cannot run.
    choices.append(choice._replace(runtime=forward_pass.TENSORFLOW))
  for caches in map(caches_of_choice, choices):
    if all(cache.is_complete() for cache in caches.values()):
      return caches, None
  forward = forward_pass.load_from_session(
      session, [graph.backbone.images], graph.backbone.cut.features, options,
      run.info.precision)
  tf.logging.info('Forward passes: %s', forward.choice.describe())
  caches = caches_of_choice(forward.choice)
  feature_cache.check_room(list(caches.values()))
  if forward.choice.precision != choice.precision:
    run_info.save(run.config.train_dir, run.info._replace(
        precision=forward.choice.precision))
  return caches, forward


def _view_key(config):
  """Returns what only the features of augmented views depend on."""
  return dict(seed=config.seed or 0, fast_mode=config.fast_mode,
              min_crop_area=head_graph.least_crop_area(config.min_crop_area))
