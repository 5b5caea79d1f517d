"""What the pages and the errors say, in English and in Chinese.

  text = texts.of('zh')
  text['choose'], texts.sentence('zh', refused)

Both tables have the same keys and name the same values; tests/app_test.py holds
that.
"""

LANGUAGES = ('en', 'zh')

_EN = {
    'lang': 'en',
    'title': 'Which class is it?',
    'failed': 'That did not work',
    'choose': 'Choose one or several photos',
    'drop': ', or drop them here, or paste one',
    'classify': 'Classify',
    'limits': 'JPEG or PNG, up to %(max_mb)d MB each, %(max_photos)d at once.',
    'classes': 'The %(count)d classes',
    'scores': 'Class scores, largest first',
    'photo': 'The photo that was classified',
    'unknown': 'The photo is not like those that the classifier has learnt '
               'from. The scores below compare its classes, as if it were one '
               'of them.',
    'none_of': 'None of: %s',
    'others': '%s and %d others',
    'comma': ', ',
    'results': 'Results',
    'another': 'Another one',
    'waiting': 'Classifying…',
    'queued': 'The server is busy; trying again…',
    'no_answer': 'The server does not answer. Please try again.',
}

_ZH = {
    'lang': 'zh',
    'title': '这是哪一类？',
    'failed': '没有成功',
    'choose': '选择一张或多张照片',
    'drop': '，也可以拖放到这里，或者粘贴一张',
    'classify': '识别',
    'limits': 'JPEG 或 PNG，每张不超过 %(max_mb)d MB，'
              '一次最多 %(max_photos)d 张。',
    'classes': '共 %(count)d 个类别',
    'scores': '各类别的得分，从高到低',
    'photo': '被识别的照片',
    'unknown': '这张照片与分类器学过的照片不相像。'
               '下面的得分只是在它的类别之间作比较，好像它属于其中之一。',
    'none_of': '都不是：%s',
    'others': '%s等，另有 %d 类',
    'comma': '、',
    'results': '结果',
    'another': '再来一张',
    'waiting': '正在识别……',
    'queued': '服务器正忙，正在重试……',
    'no_answer': '服务器没有回答，请再试一次。',
}

_SENTENCES = {
    'en': {
        'bad_form': 'The form cannot be read: it is damaged or incomplete.',
        'bad_parameter': 'The parameter %(name)s is not usable: it takes '
                         '%(accepted)s.',
        'bad_request': 'This request cannot be understood.',
        'busy': 'There are too many photos at the moment. Please try again in '
                '%(seconds)d s.',
        'closing': 'The server is about to end. Please try again later.',
        'cross_site': 'This form can only be sent from its own page.',
        'empty_file': 'The file is empty.',
        'no_photo': 'Please choose a photo first.',
        'not_a_photo': 'The file is neither a JPEG nor a PNG photo.',
        'not_allowed': 'This address does not take such a request.',
        'not_found': 'There is nothing at this address.',
        'our_mistake': 'Something went wrong here. Please try again.',
        'too_large': 'The photo is larger than %(max_mb)d MB, which is the '
                     'most that is accepted.',
        'request_too_large': 'The photos are larger than %(max_mb)d MB '
                             'together, which is the most that is accepted at '
                             'once.',
        'too_many_parts': 'The form has more than %(most)d parts, which is the '
                          'most that is accepted.',
        'too_many_photos': 'There are more than %(most)d photos, which is the '
                           'most that is accepted at once.',
        'too_many_pixels': 'The photo has %(width)d x %(height)d pixels; at '
                           'most %(most)s million are accepted.',
        'too_many_pixels_a_side': 'The photo has %(width)d x %(height)d '
                                  'pixels; at most %(most)d a side are '
                                  'accepted.',
        'unauthorized': 'This address needs the header Authorization: Bearer, '
                        'with the right token.',
        'unreadable_photo': 'This photo cannot be read: it is damaged or cut '
                            'off.',
    },
    'zh': {
        'bad_form': '无法读取表单：它已损坏或不完整。',
        'bad_parameter': '参数 %(name)s 不可用：它应为 %(accepted)s。',
        'bad_request': '无法理解这个请求。',
        'busy': '现在照片太多，请在 %(seconds)d 秒后再试。',
        'closing': '服务器即将停止，请稍后再试。',
        'cross_site': '这个表单只能从它自己的页面提交。',
        'empty_file': '文件是空的。',
        'no_photo': '请先选择一张照片。',
        'not_a_photo': '这个文件既不是 JPEG 也不是 PNG 照片。',
        'not_allowed': '这个地址不接受这样的请求。',
        'not_found': '这个地址没有内容。',
        'our_mistake': '服务器出了问题，请再试一次。',
        'too_large': '照片超过 %(max_mb)d MB，这是可接受的上限。',
        'request_too_large': '照片合计超过 %(max_mb)d MB，'
                             '这是一次可接受的上限。',
        'too_many_parts': '表单超过 %(most)d 个部分，这是可接受的上限。',
        'too_many_photos': '照片超过 %(most)d 张，这是一次可接受的上限。',
        'too_many_pixels': '照片有 %(width)d x %(height)d 像素；'
                           '最多接受 %(most)s 百万像素。',
        'too_many_pixels_a_side': '照片有 %(width)d x %(height)d 像素；'
                                  '每边最多接受 %(most)d 像素。',
        'unauthorized': '这个地址需要带有正确令牌的标头 '
                        'Authorization: Bearer。',
        'unreadable_photo': '无法读取这张照片：它已损坏或被截断。',
    },
}

_TABLES = {'en': _EN, 'zh': _ZH}


def of(language):
  """Returns the table of one of LANGUAGES."""
  return _TABLES[language]


def sentence(language, refused):
  """Returns what the visitor reads of a refusals.Refused."""
  return _SENTENCES[language][refused.code] % refused.values


def as_json(language, refused):
  """Returns the object that the API answers with, as a dict."""
  return {'error': {'code': refused.code,
                    'message': sentence(language, refused)}}


def none_of_words(language):
  """Returns the words that serving.rows.none_of takes."""
  table = of(language)
  return table['none_of'], table['others'], table['comma']
