"""Texts of the pages and the errors, in English and in Chinese.

  text = texts.for_language('zh')
  text['choose'], texts.message('zh', refused)

Both tables have the same keys, with the same placeholders; app_test.py
checks that.
"""

from typing import Any, Dict, Optional, Sequence, Union

from datasets.photo_files import formats
from serving.web.refusals import Refused

LANGUAGES = ('en', 'zh')

_EN = {
    'lang': 'en',
    'title': 'Which class is it?',
    'failed': 'That did not work',
    'choose': 'Choose one or several photos',
    'drop': 'or drop them here, or paste one',
    'classify': 'Classify',
    'limits': '%(accepted)s, up to %(max_mb)d MB each, %(max_photos)d at once.',
    'kept': 'Photos are kept on this server for at most %s, without their '
            'file names and without the metadata of the camera: places, times, '
            'names.',
    'not_kept': 'Photos are not kept.',
    'day': '%s day',
    'days': '%s days',
    'classes': 'The %(count)d classes',
    'scores': 'Class scores, largest first',
    'photo': 'The photo that was classified',
    'unknown': 'The photo is not like those that the classifier has learnt '
               'from.',
    'none_of': 'None of the %(count)d classes',
    'forced': 'If it had to be one of them',
    'network': 'Network %(name)s',
    'accuracy': '%(percent)s of %(photos)s correct',
    'interval': '95 %% interval %(low)s to %(high)s',
    'measured': 'measured on %(date)s',
    'test_photos': '%(count)d test photos',
    'test_split': 'the test photos',
    'validation_photos': '%(count)d validation photos',
    'validation_split': 'the validation photos',
    'train_photos': '%(count)d training photos',
    'split_photos': 'the %(split)s photos',
    'examples': 'Training photos of the classes.',
    'try_them': 'Click one to classify it.',
    'try_example': 'Classify the training photo: %s',
    'comma': ', ',
    'or': '%s or %s',
    'format': '%s',
    'of_file': '%s: %s',
    'results': 'Results',
    'another': 'Another one',
    'choose_photos': 'Choose photos',
    'more': 'More photos',
    'camera': 'Take a photo',
    'clear_results': 'Clear',
    'cleared': 'The results are cleared.',
    'photos_done': '%(done)s of %(count)s photos classified',
    'waiting': 'Classifying…',
    'queued': 'The server is busy; trying again…',
    'no_answer': 'The server does not respond. Please try again.',
    'examples_changed': 'The examples have changed. Please reload the page.',
    'why': 'Why?',
    'why_too': 'Also show why',
    'why_class': 'What raises the score of',
    'heat_map': 'Heat map of the photo',
    'why_map': 'Yellow: what raises the score of %s. Blue: what does not. The '
               'network does not see the dark border.',
    'why_nothing': 'Nothing in the photo raises the score of %s.',
    'too_many_pixels_to_show': 'The photo is too large to be shown here.',
    'nearest': 'The most similar training photos',
    'wrong': 'This is wrong',
    'right_class': 'The right class',
    'none_of_these': 'None of these',
    'new_class': 'or a new class',
    'photo_again': 'The photo again',
    'token': 'Token',
    'send': 'Send',
    'correction_kept': 'The photo is then kept on this server, without its '
                       'file name and metadata.',
    'thanks': 'Thank you: a person will look at it.',
}

_ZH = {
    'lang': 'zh',
    'title': '这是哪一类？',
    'failed': '没有成功',
    'choose': '选择一张或多张照片',
    'drop': '也可以拖放到这里，或者粘贴一张',
    'classify': '识别',
    'limits': '%(accepted)s，每张不超过 %(max_mb)d MB，'
              '一次最多 %(max_photos)d 张。',
    'kept': '照片会在本服务器上最多保存%s，不保存文件名，'
            '也不保存相机写入的元数据：地点、时间和姓名。',
    'not_kept': '照片不会被保存。',
    'day': ' %s 天',
    'days': ' %s 天',
    'classes': '共 %(count)d 个类别',
    'scores': '各类别的得分，从高到低',
    'photo': '被识别的照片',
    'unknown': '这张照片与分类器学过的照片不相像。',
    'none_of': '不属于这 %(count)d 个类别',
    'forced': '如果一定要选一类',
    'network': '网络 %(name)s',
    'accuracy': '%(photos)s中 %(percent)s 正确',
    'interval': '95 %% 置信区间 %(low)s 至 %(high)s',
    'measured': '测于 %(date)s',
    'test_photos': '%(count)d 张测试照片',
    'test_split': '测试照片',
    'validation_photos': '%(count)d 张验证照片',
    'validation_split': '验证照片',
    'train_photos': '%(count)d 张训练照片',
    'split_photos': '%(split)s 照片',
    'examples': '各类的训练照片。',
    'try_them': '点击即可识别。',
    'try_example': '识别训练照片：%s',
    'comma': '、',
    'or': '%s 或 %s',
    'format': ' %s',
    'of_file': '%s：%s',
    'results': '结果',
    'another': '再来一张',
    'choose_photos': '选择照片',
    'more': '再选照片',
    'camera': '拍照',
    'clear_results': '清除',
    'cleared': '结果已清除。',
    'photos_done': '已识别 %(done)s / %(count)s 张照片',
    'waiting': '正在识别……',
    'queued': '服务器正忙，正在重试……',
    'no_answer': '服务器没有响应，请再试一次。',
    'examples_changed': '示例照片已更换，请刷新页面。',
    'why': '为什么？',
    'why_too': '同时显示原因',
    'why_class': '查看提高得分的部位：',
    'heat_map': '照片的热图',
    'why_map': '黄色：提高“%s”得分的部位；蓝色：其余部位。'
               '网络看不到深色的边缘。',
    'why_nothing': '照片中没有提高“%s”得分的部位。',
    'too_many_pixels_to_show': '照片太大，无法在这里显示。',
    'nearest': '最相似的训练照片',
    'wrong': '结果不对',
    'right_class': '正确的类别',
    'none_of_these': '都不是',
    'new_class': '或新的类别',
    'photo_again': '再次选择这张照片',
    'token': '令牌',
    'send': '发送',
    'correction_kept': '照片随后会保存在本服务器上，不含文件名和元数据。',
    'thanks': '谢谢，会有人查看。',
}

_SENTENCES = {
    'en': {
        'bad_class': 'This cannot be the name of a class: at most %(most)d '
                     'letters, digits and spaces; not / \\ : * ? " < > |, not '
                     'train, validation or test.',
        'bad_encoding': 'The body of the request is compressed '
                        '(Content-Encoding: %(encoding)s), which is not '
                        'accepted.',
        'bad_form': 'The form cannot be read: it is damaged or incomplete.',
        'bad_parameter': 'The parameter %(name)s is not valid; accepted: '
                         '%(accepted)s.',
        'bad_request': 'This request cannot be understood.',
        'busy': 'There are too many photos at the moment. Please try again in '
                '%(seconds)d s.',
        'client_left': 'The connection was closed before the response.',
        'closing': 'The server is shutting down. Please try again later.',
        'cross_site': "Photos are only accepted from this server's own page. "
                      'Please open it again and send them from there.',
        'empty_file': 'The file is empty.',
        'inbox_full': 'The server accepts no more corrections until those that '
                      'it has are reviewed.',
        'no_boundary': 'The Content-Type of the form has no boundary: leave '
                       'this header to the HTTP client.',
        'no_photo': 'There is no photo in the request. Please choose one '
                    'first.',
        'not_a_file': 'The field "%(name)s" contains text instead of a file.',
        'not_a_photo': '%(format)s is not accepted: send the photo as a '
                       '%(accepted)s file.',
        'save_as': '%(format)s is not accepted: save the photo as '
                   '%(accepted)s.',
        'not_allowed': 'This address does not accept such a request.',
        'not_available': 'The parameter %(name)s is not available with this '
                         'model or on this server.',
        'not_found': 'There is nothing at this address.',
        'our_mistake': 'Something went wrong on the server. Please try again.',
        'timed_out': 'The response took too long. Please try again in '
                     '%(seconds)d s.',
        'too_costly': 'This photo would take too long to decode: its file '
                      'consists of too many pieces. Please save it again.',
        'too_large': 'The photo is larger than %(max_mb)d MB, which is the '
                     'most that is accepted.',
        'request_too_large': 'Together, the photos are larger than %(max_mb)d '
                             'MB, which is the most that is accepted at once.',
        'too_many_parts': 'The form has more than %(most)d parts, which is the '
                          'most that is accepted.',
        'too_many_photos': 'There are more than %(most)d photos, which is the '
                           'most that is accepted at once.',
        'too_many_pixels': 'The photo has %(width)d x %(height)d pixels; at '
                           'most %(most)s million are accepted.',
        'too_many_pixels_a_side': 'The photo has %(width)d x %(height)d '
                                  'pixels; at most %(most)d per side are '
                                  'accepted.',
        'too_many_requests': 'At most %(most)d photos per minute are accepted '
                             'from one client. Please try again in '
                             '%(seconds)d s.',
        'too_much_memory': 'As a %(format)s, this photo of %(width)d x '
                           '%(height)d pixels takes %(needed)d MB of memory; '
                           'at most %(most)d MB are accepted. Please make it '
                           'smaller.',
        'unauthorized': 'This address requires the header Authorization: '
                        'Bearer with a valid token.',
        'unreadable_photo': 'This photo cannot be read: it is damaged or cut '
                            'off.',
        'wrong_field': 'The field "%(name)s" is not known: photos belong in '
                       'the field "%(accepted)s".',
        'wrong_host': 'This server does not answer under the name "%(name)s"; '
                      'its flag --allowed_hosts can allow it.',
    },
    'zh': {
        'bad_class': '不能用作类别名称：最多 %(most)d 个字母、数字或空格，'
                     '不能含有 / \\ : * ? " < > |，'
                     '也不能是 train、validation 或 test。',
        'bad_encoding': '请求的正文经过压缩（Content-Encoding: '
                        '%(encoding)s），不被接受。',
        'bad_form': '无法读取表单：它已损坏或不完整。',
        'bad_parameter': '参数 %(name)s 无效：它应为 %(accepted)s。',
        'bad_request': '无法理解这个请求。',
        'busy': '现在照片太多，请在 %(seconds)d 秒后再试。',
        'client_left': '连接在响应之前已关闭。',
        'closing': '服务器正在关闭，请稍后再试。',
        'cross_site': '只接受从本服务器自己的页面发送的照片，'
                      '请重新打开页面再发送。',
        'empty_file': '文件是空的。',
        'inbox_full': '服务器已收到的更正尚待查看，暂不接受新的更正。',
        'no_boundary': '表单的 Content-Type 没有 boundary：'
                       '请让 HTTP 客户端自己设置这个标头。',
        'no_photo': '请求中没有照片，请先选择一张。',
        'not_a_file': '字段“%(name)s”的内容是文本，不是文件。',
        'not_a_photo': '不接受%(format)s：请发送 %(accepted)s 格式的照片。',
        'save_as': '不接受%(format)s：请把照片另存为 %(accepted)s。',
        'not_allowed': '这个地址不接受这样的请求。',
        'not_available': '参数 %(name)s 在此模型或此服务器上不可用。',
        'not_found': '这个地址没有内容。',
        'our_mistake': '服务器出了问题，请再试一次。',
        'timed_out': '处理时间过长，请在 %(seconds)d 秒后再试。',
        'too_costly': '解码这张照片会花费太长时间：文件分成了过多的片段，'
                      '请重新保存照片。',
        'too_large': '照片超过 %(max_mb)d MB，这是可接受的上限。',
        'request_too_large': '照片合计超过 %(max_mb)d MB，'
                             '这是一次可接受的上限。',
        'too_many_parts': '表单超过 %(most)d 个部分，这是可接受的上限。',
        'too_many_photos': '照片超过 %(most)d 张，这是一次可接受的上限。',
        'too_many_pixels': '照片有 %(width)d x %(height)d 像素；'
                           '最多接受 %(most)s 百万像素。',
        'too_many_pixels_a_side': '照片有 %(width)d x %(height)d 像素；'
                                  '每边最多接受 %(most)d 像素。',
        'too_many_requests': '每个客户端每分钟最多接受 %(most)d 张照片，'
                             '请在 %(seconds)d 秒后再试。',
        'too_much_memory': '这张 %(width)d x %(height)d 像素的照片'
                           '（%(format)s）解码需要 %(needed)d MB 内存，'
                           '最多接受 %(most)d MB。请缩小照片。',
        'unauthorized': '这个地址需要带有有效令牌的标头 '
                        'Authorization: Bearer。',
        'unreadable_photo': '无法读取这张照片：它已损坏或被截断。',
        'wrong_field': '无法识别字段“%(name)s”：'
                       '照片应放在字段“%(accepted)s”中。',
        'wrong_host': '本服务器不以“%(name)s”这个名称提供服务；'
                      '可以用它的参数 --allowed_hosts 允许这个名称。',
    },
}

_TABLES = {'en': _EN, 'zh': _ZH}

# Formats of datasets.photo_files.formats whose name is not a proper name.
_FORMATS: Dict[str, Dict[Optional[str], str]] = {
    'en': {None: 'A file of this kind'},
    'zh': {None: '这种文件', 'Plain text': '纯文本',
           'progressive JPEG': '渐进式 JPEG'},
}


def for_language(language: str) -> Dict[str, str]:
  """Returns the table for one of LANGUAGES."""
  return _TABLES[language]


def message(language: str, refused: Refused) -> str:
  """Returns the message of a refusals.Refused for the visitor."""
  table, values = for_language(language), dict(refused.values)
  key = refused.code
  if key == 'not_a_photo':
    name = values['format']
    key = 'save_as' if name in formats.PHOTOS else key
    values.update(format=_FORMATS[language].get(name, table['format'] % name),
                  accepted=alternatives(language, values['accepted']))
  elif 'format' in values:
    values['format'] = _FORMATS[language].get(values['format'],
                                              values['format'])
  text = _SENTENCES[language][key] % values
  return table['of_file'] % (refused.file, text) if refused.file else text


def alternatives(language: str, names: Sequence[str]) -> str:
  """Returns names as alternatives: 'JPEG or PNG'."""
  table = for_language(language)
  if len(names) < 2:
    return ''.join(names)
  return table['or'] % (table['comma'].join(names[:-1]), names[-1])


def retention_notice(language: str, days: Union[float, bool]) -> str:
  """Returns the text for visitors about keeping the photos that they send.

  Args:
    language: one of LANGUAGES.
    days: maximum number of days that photos are kept; 0 or False: not kept.
  """
  table = for_language(language)
  if not days:
    return table['not_kept']
  return table['kept'] % (table['day' if days == 1 else 'days'] % '%g' % days)


def error_json(language: str, refused: Refused) -> Dict[str, Any]:
  """Returns the JSON object of the API for an error, as a dict."""
  return {'error': {'code': refused.code,
                    'message': message(language, refused)}}
