"""Functions that damage a record file."""


def truncate(path):
  path.write_bytes(path.read_bytes()[:-100])


def keep_first_record(path):
  data = path.read_bytes()
  length = int.from_bytes(data[:8], 'little')
  path.write_bytes(data[:length + 16])


def flip_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


def overwrite(path):
  path.write_bytes(b'x' * path.stat().st_size)
