"""Recognizes files that systems and photo programs leave in photo folders."""

from typing import Optional

# Compared without regard to case.
_NAMES = frozenset([
    'thumbs.db', 'desktop.ini', 'autorun.inf', '$recycle.bin', 'recycler',
    'system volume information',                                  # Windows
    '__macosx', 'icon\r', 'network trash folder', 'temporary items',  # macOS
    'lost+found',                                                 # ext4
    '@eadir', '#recycle', '#snapshot', '@recycle',                # NAS systems
    'picasa.ini', 'zbthumbnail.info',
])
# ehthumbs_vista.db and the like.
_THUMBNAILS = ('ehthumbs', '.db')
# Streams that Windows keeps within a file; copied to another system they become
# files.
_STREAMS = (':zone.identifier', ':encryptable')
# Google Takeout and Flickr write `photo.jpg.json`, Adobe programs .xmp, Apple's
# .aae, Canon's cameras .thm, RawTherapee .pp3, DxO .dop.
_SIDE_FILES = ('.json', '.xmp', '.aae', '.thm', '.pp3', '.dop')


def reason(name: str, is_folder: bool = False) -> Optional[str]:
  """Returns why a file or folder is neither a photo nor a class.

  Args:
    name: its name, without the path.
    is_folder: whether it is a folder.

  Returns:
    'hidden' or 'a side file of a photo program'; None: it may be a photo or a
    class.
  """
  lower = name.lower()
  if (name.startswith('.') or lower in _NAMES or lower.endswith(_STREAMS) or
      lower.startswith(_THUMBNAILS[0]) and lower.endswith(_THUMBNAILS[1])):
    return 'hidden'
  if not is_folder and lower.endswith(_SIDE_FILES):
    return 'a side file of a photo program'
  return None
