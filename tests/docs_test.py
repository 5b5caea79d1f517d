"""Tests of the Markdown files: working links, and a short README.md."""

import glob
import os
import re
from urllib.parse import unquote

import pytest

from kits.helpers import ROOT

# Folders that the scripts write, or that are not part of this project.
_SKIPPED_FOLDERS = {'checkpoints', 'data', 'output', 'shared'}

_FENCED = re.compile(r'^ *(```|~~~).*?^ *\1 *$', re.MULTILINE | re.DOTALL)
_CODE = re.compile(r'(`+)(?!`).*?(?<!`)\1(?!`)', re.DOTALL)
_TARGETS = [
    re.compile(r'\]\(\s*<?([^)\s>]*)>?(?:\s+"[^"]*")?\s*\)'),  # [text](target)
    re.compile(r'^ *\[[^\]]+\]: *<?([^\s>]+)', re.MULTILINE),  # [name]: target
    re.compile(r'<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]*)"'),
]
_HEADING = re.compile(r'^#{1,6} +(.+?) *#* *$', re.MULTILINE)
_ANCHOR = re.compile(r'<a\b[^>]*?\b(?:id|name)="([^"]*)"')


def markdown_files(root):
  """Returns the paths of the project's Markdown files, sorted."""
  paths = []
  for folder, folders, names in os.walk(root):
    folders[:] = [name for name in folders if name[0] != '.' and not (
        folder == root and name in _SKIPPED_FOLDERS)]
    paths += [os.path.join(folder, name) for name in names
              if name.endswith('.md')]
  return sorted(paths)


def read(path):
  """Returns a Markdown file's text without its code blocks."""
  with open(path, encoding='utf-8') as stream:
    return _FENCED.sub('', stream.read())


def targets(path):
  """Returns the targets of all links and images of a Markdown file."""
  text = _CODE.sub('', read(path))
  return [target for pattern in _TARGETS for target in pattern.findall(text)]


def anchors(path):
  """Returns a Markdown file's anchors; those of headings as on GitHub."""
  text = read(path)
  slugs = set(_ANCHOR.findall(text))
  for heading in _HEADING.findall(text):
    heading = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    anchor, number = slug, 0
    while anchor in slugs:  # A repeated heading.
      number += 1
      anchor = '%s-%d' % (slug, number)
    slugs.add(anchor)
  return slugs


def broken_links(path, root):
  """Returns the broken relative links of a Markdown file."""
  broken = []
  for target in targets(path):
    if re.match(r'[a-z][a-z0-9+.-]*:|//', target, re.IGNORECASE):
      continue  # An external link; tests do not use the network.
    file, _, anchor = unquote(target).partition('#')
    other = os.path.normpath(os.path.join(os.path.dirname(path), file))
    if not file:
      other = path
    inside = os.path.relpath(other, root).split(os.sep)[0] != os.pardir
    if not target or not inside or not os.path.exists(other) or (
        anchor and other.endswith('.md') and anchor not in anchors(other)):
      broken.append(target)
  return broken


@pytest.mark.parametrize('path', [os.path.relpath(path, ROOT)
                                  for path in markdown_files(ROOT)])
def test_markdown_relative_links_and_anchors_exist(path):
  assert broken_links(os.path.join(ROOT, path), ROOT) == []


@pytest.mark.parametrize('name', ['README.md', 'README.zh-CN.md'])
def test_readme_links_to_every_page(name):
  linked = {target.split('#')[0]
            for target in targets(os.path.join(ROOT, name))}
  pages = {os.path.relpath(path, ROOT)
           for path in glob.glob(os.path.join(ROOT, 'docs', '*.md'))}
  assert pages - linked == set()


def test_readme_has_at_most_170_lines():
  with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as stream:
    assert len(stream.readlines()) <= 170


@pytest.mark.parametrize('link', [
    '[a](gone.md)', '![two\nlines](gone.png)', '[a](other.md#gone)',
    '[a](#gone)', '[a](../outside.md)', '[a](/other.md)', '[a](Other.md)',
    '[a](other.md#First)', '[a](other.md#twice-2)', '[a](#code)', '[a]()',
    '[a][b]\n\n[b]: gone.md', '<img src="gone.png">',
    '[![a](photo.png)](gone.md)', '[![a](gone.png)](other.md)',
    '| [a](gone.md "title") |'])
def test_broken_links_lists_a_broken_link(tmp_path, link):
  (tmp_path / 'other.md').write_text('# First\n## Twice\n## Twice\n')
  (tmp_path / 'photo.png').write_bytes(b'')
  outside = tmp_path.parent / 'outside.md'
  outside.write_text('')
  page = tmp_path / 'page.md'
  page.write_text('# Page\n\n```\n# Code\n```\n\n%s\n' % link)
  assert len(broken_links(str(page), str(tmp_path))) == 1


@pytest.mark.parametrize('link', [
    '[a](other.md)', '[a](#page)', '[a](other.md#what-run_itsh-does)',
    '[a](other.md#slims-two-ways)', '[a](other.md#twice)',
    '[a](other.md#twice-1)', '[a](other.md#here)', '[a](other.md#照片-一)',
    '[a](docs)', '[a](docs/a%20b.md "title")', '[a](<other.md>)',
    '[a][b]\n\n[b]: other.md', '[![a](photo.png)](other.md)',
    '[a](https://example.org/gone)', 'a `[b](gone.md)` c',
    '```sh\n[a](gone.md)\n```', 'mail: [a](mailto:a@example.org)'])
def test_broken_links_omits_a_working_link(tmp_path, link):
  (tmp_path / 'other.md').write_text(
      '# Other\n## What run_it.sh does\n## `slim`\'s [two](gone) ways\n'
      '## Twice\n## Twice\n<a id="here"></a>\n## 照片 一\n', encoding='utf-8')
  (tmp_path / 'docs').mkdir()
  (tmp_path / 'docs' / 'a b.md').write_text('')
  (tmp_path / 'photo.png').write_bytes(b'')
  page = tmp_path / 'page.md'
  page.write_text('# Page\n\n%s\n' % link, encoding='utf-8')
  assert broken_links(str(page), str(tmp_path)) == []
