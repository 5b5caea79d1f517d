"""Configuration of a training run, made once from the flags of the program.

  config = make(values, given)
  config = config._replace(seed=7)     # Another one; none is ever changed.

Fields have the names of the flags of train_image_classifier.py.
"""

from typing import Any, Dict, Mapping, NamedTuple, Optional

from common.errors import InputError
from deployment import hosts


class OptimizerConfig(NamedTuple):
  """Optimizer and learning rate schedule; see training/optimizer.py."""
  weight_decay: float  # Factor of the L2 loss of the weights.
  optimizer: str  # Its name.
  adadelta_rho: float  # Decay rate.
  adagrad_initial_accumulator_value: float  # Of the squared gradients.
  adam_beta1: float  # Decay rate of the first moment.
  adam_beta2: float  # Decay rate of the second moment.
  opt_epsilon: Optional[float]  # None: optimizer.DEFAULT_EPSILON.
  ftrl_learning_rate_power: float  # Power of the learning rate.
  ftrl_initial_accumulator_value: float  # Of the squared gradients.
  ftrl_l1: float  # L1 regularization strength.
  ftrl_l2: float  # L2 regularization strength.
  momentum: float  # Of the optimizer momentum.
  rmsprop_momentum: float  # Of the optimizer rmsprop.
  rmsprop_decay: float  # Decay rate of the squared gradients.
  clip_gradient_norm: float  # Largest global norm; 0: no clipping.
  learning_rate_decay_type: str  # fixed, exponential, polynomial or cosine.
  learning_rate: float  # Of the first step, after warm-up.
  end_learning_rate: float  # At which polynomial and cosine decay end.
  learning_rate_decay_factor: float  # Of each exponential decay.
  num_epochs_per_decay: float  # Epochs after which the learning rate decays.
  learning_rate_decay_steps: Optional[int]  # In steps; None: by these epochs.
  warmup_steps: int  # Steps of linear warm-up; 0: none.
  warmup_epochs: float  # Epochs of it; 0: none.


class ReplicaConfig(NamedTuple):
  """Clones in this process, and the processes that train together."""
  num_clones: int  # Copies of the network in this process, one per GPU.
  clone_on_cpu: bool  # Whether the copies compute on the CPU.
  worker_replicas: int  # Workers that train together.
  num_ps_tasks: int  # Parameter servers; 0: this process has the variables.
  balance_ps: bool  # Whether variables are distributed by size in bytes.
  task: int  # Index of this worker; worker 0 writes the checkpoints.
  sync_replicas: bool  # Whether gradients of the workers are applied together.
  replicas_to_aggregate: int  # Gradients applied together if sync_replicas.
  all_reduce: bool  # Whether the workers exchange gradients with each other.
  master: str  # Address of the TensorFlow master, '' for this process.

  @property
  def is_cluster(self) -> bool:
    """Whether other processes take part."""
    return bool(self.num_ps_tasks or self.all_reduce)


class CheckpointConfig(NamedTuple):
  """What a new run restores from a checkpoint, and what it trains."""
  checkpoint_path: Optional[str]  # Or a train directory; None: from scratch.
  which_checkpoint: Optional[str]  # Of a train directory: best, newest, None.
  checkpoint_exclude_scopes: Optional[str]  # Not restored; comma-separated.
  trainable_scopes: Optional[str]  # Comma-separated; None: all.
  train_classifier_only: bool  # Scopes that are None are the classifier's.
  train_aux_classifier: Optional[bool]  # None: see has_aux_loss.
  ignore_missing_vars: bool  # Whether the checkpoint may lack variables.

  def has_aux_loss(self) -> bool:
    """Returns whether an auxiliary classifier is trained.

    Only training uses one, for its gradients in the layers below, so by default
    it is not trained in a run that begins with these frozen.
    """
    if self.train_aux_classifier is not None:
      return self.train_aux_classifier
    return not self.train_classifier_only or self.trainable_scopes is not None


class TrainConfig(NamedTuple):
  """Everything that a training run is asked for."""
  train_dir: str  # Folder of checkpoints and event files.
  model_name: str  # Name of the network.
  preprocessing_name: Optional[str]  # None: the network's own.
  use_grayscale: bool  # Whether photos are converted to grey.
  train_image_size: Optional[int]  # Side in pixels; None: the network's own.
  dataset_name: str  # Name of the converted data set.
  dataset_split_name: str  # Split that is trained on.
  dataset_dir: str  # Folder of the TFRecord files.
  labels_offset: int  # Subtracted from the labels of the data set.
  batch_size: int  # Photos per step and clone.
  max_number_of_steps: Optional[int]  # Global step to end at; None: no end.
  seed: Optional[int]  # Of all random numbers; None: each run differs.
  log_every_n_steps: int  # Steps between two log lines.
  save_summaries_secs: int  # Seconds between two summaries of photos, weights.
  save_interval_secs: int  # Seconds between two checkpoints.
  num_readers: int  # TFRecord files that are read in turn.
  num_preprocessing_threads: int  # Threads that decode and preprocess photos.
  preprocess_on_device: bool  # Whether the clones distort photos, in batches.
  fast_mode: bool  # Whether Inception's preprocessing uses fewer operations.
  min_crop_area: Optional[float]  # Least share of a photo's area in a crop;
  # None: 0.05, or head_graph.least_crop_area where that is used.
  label_smoothing: float  # Share of each label spread over all classes.
  dropout_keep_prob: Optional[float]  # None: the network's own.
  class_weights: Optional[str]  # As of losses.make_class_weights; None: all 1.
  mixup_alpha: float  # Of the Beta distribution; 0: no mixing.
  moving_average_decay: Optional[float]  # None: no averages are kept.
  batch_norm_decay: Optional[float]  # None: graph.py decides.
  quantize_delay: int  # Step at which quantization begins; < 0: none.
  train_frozen_batch_norm: bool  # Frozen batch norm is in training mode.
  head: str  # One of start.HEADS.
  flip_average: bool  # Whether features are averaged over the mirror image.
  cache_features: bool  # Whether to train on cached features of the backbone.
  cache_views: int  # Augmented views of each photo that are cached too.
  feature_cache_dir: Optional[str]  # None: next to the records.
  runtime: str  # Of forward passes; one of forward_pass.RUNTIMES.
  xla: bool  # Whether TensorFlow compiles its graphs with XLA.
  precision: str  # Of forward passes, and of gradients if it is given; one
  # of forward_pass.PRECISIONS.
  early_stop_evals: int  # Evaluations without a gain to end after; 0: never.
  evaluate_every_n_steps: Optional[int]  # None: every epoch if cache_features,
  # else not at all.
  finetune_all_steps: int  # Steps to train all layers afterwards; 0: none.
  finetune_all_learning_rate: float  # Initial learning rate of these steps.
  train_last_blocks: int  # Last blocks to train afterwards; 0: none.
  last_blocks_epochs: int  # For how long.
  last_blocks_learning_rate: float  # Initial learning rate of these epochs.
  optimizer: OptimizerConfig
  replicas: ReplicaConfig
  checkpoint: CheckpointConfig
  given: Dict[str, Any]  # {flag: value} of the flags that the user gave.


_PARTS: Dict[str, Any] = {
    'optimizer': OptimizerConfig,
    'replicas': ReplicaConfig,
    'checkpoint': CheckpointConfig}


def make(values: Mapping[str, Any], given: Mapping[str, Any]) -> TrainConfig:
  """Returns the configuration of a run.

  Args:
    values: {flag: value}; has all fields, and may have more.
    given: those flags that the user gave.
  """
  parts = {name: part(**{field: values[field] for field in part._fields})
           for name, part in _PARTS.items()}
  others = {field: values[field] for field in TrainConfig._fields
            if field not in parts and field != 'given'}
  return TrainConfig(given=dict(given), **others, **parts)


def with_task_counts(config: TrainConfig,
                     cluster: hosts.Cluster) -> TrainConfig:
  """Returns the configuration with the numbers of tasks of a cluster.

  Unless it is given, replicas_to_aggregate is the number of workers.

  Raises:
    InputError: a number was given and is another one.
  """
  counts: Dict[str, Any] = {}
  for name, job, tasks in (('worker_replicas', 'worker', cluster.workers),
                           ('num_ps_tasks', 'ps', cluster.ps)):
    if config.given.get(name, len(tasks)) != len(tasks):
      raise InputError('--%s=%d contradicts --%s_hosts, which has %d; omit it' %
                       (name, config.given[name], job, len(tasks)))
    counts[name] = len(tasks)
  replicas = config.replicas
  if replicas.sync_replicas and 'replicas_to_aggregate' not in config.given:
    counts['replicas_to_aggregate'] = len(cluster.workers)
  return config._replace(replicas=replicas._replace(**counts))
