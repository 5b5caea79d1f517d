"""Verifies the TFRecord files of a data set.

  python -m tools.verify_tfrecord --dataset_name=my_flower_5 --dataset_dir=data

Reads every record of every split and checks both checksums, its fields and its
label; decodes some photos; compares the counts with the manifest and the file
names. Prints one line per problem, with file, record and byte, and one line per
split. Exits with status 1 if anything is wrong. Records of slim's scripts are
verified too.
"""

from typing import List

from absl import flags

from common import flags as common_flags
from datasets.records import record_check, verify

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('dataset_name', None, 'Name of the converted data set.')
  flags.DEFINE_string('dataset_dir', None, 'Folder of the TFRecord files.')
  flags.DEFINE_string(
      'dataset_split_name', None, 'Split to verify. None: all.')
  flags.DEFINE_integer(
      'num_decoded', 100,
      'Photos to decode per split, evenly spaced. 0: all.', lower_bound=0)
  flags.DEFINE_integer(
      'max_problems', 100, 'Problems to print per split. 0: all.',
      lower_bound=0)


def main(_: List[str]) -> int:
  common_flags.require(FLAGS, 'dataset_name', 'dataset_dir')
  status = 0
  for report in verify.verify(FLAGS.dataset_dir, FLAGS.dataset_name,
                              FLAGS.dataset_split_name, FLAGS.num_decoded):
    print(format_report(report, FLAGS.max_problems), flush=True)
    if report.problems:
      status = 1
  return status


def format_report(report: verify.SplitReport, max_problems: int) -> str:
  """Returns the lines of a verify.SplitReport.

  Args:
    report: the SplitReport.
    max_problems: maximum number of problems to list, 0 for all.
  """
  problems = report.problems
  shown = problems[:max_problems] if max_problems else problems
  # One line each, whatever characters a photo's name has.
  lines = [' '.join(record_check.describe(problem).split())
           for problem in shown]
  if len(shown) < len(problems):
    lines.append('and %d more; --max_problems=0 prints all of them' %
                 (len(problems) - len(shown)))
  lines.append('%s: %d records in %d files, %.1f MB, %d photos decoded: %s' % (
      report.split, report.num_records, report.num_files,
      report.num_bytes / 1e6, report.num_decoded,
      'PROBLEMS: %d' % len(problems) if problems else 'all well'))
  return '\n'.join(lines)


if __name__ == '__main__':
  define_flags()
  common_flags.run(main)
