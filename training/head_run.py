"""Training of the head of a network on cached backbone features."""

import contextlib
import os

from common.errors import InputError
from compat import tf
from runs import feature_cache
from training import head_graph, head_loop, loop, start


def train(run):
  """Computes missing features, and trains the head on them.

  Args:
    run: start.Run; if run.datasets has 'validation', it is used to evaluate.

  Returns:
    True if training finished, False if it was asked to stop.

  Raises:
    InputError: no backbone is frozen, or there are several clones or workers.
  """
  values = run.values
  for name in ('num_clones', 'worker_replicas'):
    if values[name].value > 1:
      raise InputError('--cache_features needs one clone and one worker, got '
                       '--%s=%d; give --nocache_features' %
                       (name, values[name].value))
  with tf.Graph().as_default(), contextlib.ExitStack() as stack:
    tf.set_random_seed(values.seed)
    graph = head_graph.build_from_flags(
        values, run.datasets, run.info, run.network, run.trainable_scopes,
        run.session_config)
    stack.callback(graph.twin.close)
    init_fn = start.init_fn(run)
    cache_dir = values.feature_cache_dir or head_loop.default_cache_dir(
        values.dataset_dir, values.dataset_name)
    progress = start.progress(run, graph.training.global_step)
    if not progress.is_over(values.early_stop_evals):
      head_loop.check_room_for_first(graph, run.datasets, cache_dir,
                                     values.cache_views)
      start.save_facts(run)
    options = head_loop.Options(
        values.batch_size, values.log_every_n_steps,
        values.max_number_of_steps, values.early_stop_evals,
        values.evaluate_every_n_steps, values.mixup_alpha, values.seed)
    make_caches = head_loop.caches_of(
        graph, run.datasets, cache_dir,
        feature_cache.facts_of_run(run.info), values.cache_views,
        _view_key(run))

    def make_and_record_caches(session):
      caches = make_caches(session)
      feature_cache.save_use(values.train_dir, feature_cache.Use(
          [tensor.name for tensor in graph.cut.features],
          [v.op.name for v in graph.trunk_variables],
          {split: os.path.abspath(cache.folder)
           for split, cache in caches.items()}))
      return caches

    return loop.run(
        graph.training, values.train_dir,
        init_fn=init_fn,
        number_of_steps=values.max_number_of_steps,
        log_every_n_steps=values.log_every_n_steps,
        save_summaries_secs=values.save_summaries_secs,
        save_interval_secs=values.save_interval_secs,
        session_config=run.session_config,
        make_step=lambda stop: head_loop.HeadStep(
            stop, graph, make_and_record_caches, progress, options))


def _view_key(run):
  """Returns what only the features of augmented views depend on."""
  values = run.values
  return dict(seed=values.seed or 0, fast_mode=values.fast_mode,
              min_crop_area=head_graph.least_crop_area(values))
