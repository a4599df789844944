import { gunzipSync } from 'node:zlib'

/**
 * What PostgreSQL 17 sent of two small workloads, packed: transactions with all kinds of changes, and the same with each change of
 * an open transaction streamed at once (`debug_logical_replication_streaming = immediate`).
 */
export function capturedPlain(): Buffer {
  return unpack(plain)
}

export function capturedStreamed(): Buffer {
  return unpack(streamed)
}

function unpack(lines: readonly string[]): Buffer {
  return gunzipSync(Buffer.from(lines.join(''), 'base64'))
}

const plain = [
  'H4sIAAAAAAACA+2Xz2sTURDHv7uNJYdc2kOMHiSijYXUkEbFKiKhzWFFTEEU9CDSNG1Zmu4udkvjRTyG3r14E0Sq9o8o',
  'eIsgnor4A0RQLxY81VRrIrOz7+VtmxULHncO/W7fm8+8NzMbmK0CSM4DgLa8+Rp9fa9uvzw2iCqAwjIv/3CketvH74/z',
  'Quu7t9Cc2QL0z4TkPCRgjKzdBIqas1SpmdNYsO2qd8KtMPdPV4HiAd/dRRUxzSQABzudTgcWgP7HiKMfC6DA3mrFnCOX',
  'Q/RPFYi7IfcfSlyi6GXEXFofpb+x0dyZPD3oi7YLxE/XI4ssssgiiyyyyP7B1KGp5UjloeNwYOgoWBapNwWd9ZHttFRG',
  '0hOQg5a605zZUo/aviGVuYv+fLaTYveaAehfCLkQhkxc3zsSFXJ5MRItEXxewOtSGTYCcEHC3RQNH/1pSGX0iodeFuda',
  'liXCnOt5h2LIxDhk08Q44E+Mi/Om48zQjKmpcyM9ZcVNWlI5gEv9GShD4yS606y2/OuNVPa9W1JvXbAsS+3jjiGV3e+J',
  'Pu6kAjvNmqH28XdeKnMP/D62G+xurwD6V0JKYWV4SGVI+GWYxSx0bUoOxVqFHgdFKULPfUSlSJShe5V/8dTLcpqQEwJx',
  'pDLyRCBcinHhtyqV/Vap34nJXaF3HVWlEKMiREsqh3gmQtC7oltdYsQn2oZUJp6XBNF1Fs1qr0tl5zXRrHYjsNO0V7pF',
  '61H5t9ysuj7M7u4GoH8j5CQfVdc+SmXk3aQIYTu1KdOCkvde7/dqV/rtO+acGXjv6rojlYkPfip0J3Wn6W78LZXMET+V',
  '5JiSyqaaShJSGUn3SiXsazBzdF9fg5nh//A1GPqTyWT38ZPJhuU/co3eX43uSdHUtqQaUtk3J9qSHAvs+G3xv8a7/qfw',
  'B5wIKtylDwAA',
]

const streamed = [
  'H4sIAAAAAAACA+1Zb0hdZRh/zp1T0w220ba7oruRzixNr3e7Tss5ZxpaS53OpdAqvVfnZXmvTNduHwaDWPipBUUIW7Vg',
  'wTYIoqBkH2KtDxnRnwUNodEfgwiCzXKrsT4Y7/uc89zzvM85ovj1vh/8Hc/v9/ye5/13fMA4AGw4BABgpYOXYMWKb577',
  'beWHEAeAoqP0mtF5N7sAAtctpYloDRtac9dIr9IANFgjR/pfSMRgOJWKa9s+v5CLnXbISjtkDOKQYyVUEGycn5+fhyQA',
  '5J6FfMiFYVDm+m1/4qCSbFK/xAHy03bh96cJMcOfrU6GNsgZU1yV+plTVRENq4fAaGoMIH97OjuyIzuyIzuyIzuyYxFD',
  'dSkhv8bjTrO7oSpKE2q6IKobKt0dVftpdoreJZJMKgR3ZhHWqDM/atPFpYRI74uhKwbdZuzM+cvuqoufJ8TYA6rqGwu2',
  'gQVx1QbeWEobWJDotEOW2QZCg1/hqW4nA28DIxVhpw084l5UYTDGtrN4ihDpY3ph9Czr/TQvixoiVIPcVhE+zirY2kGI',
  '9GuZCvb4ad6kCp50ViGZTDrV1C64IsJsgtVTAoRIn87U0+S371POvq+19330UGJkZECdFsu9++qp0i/Rl62OSRtYOCl3',
  '3UL/Fa/7OCHS32bqjvhprjSZ6xhJJpMsqxnyPbuUJbOESF+NoSO+vcTYmY9OuSt+YAshxv6oKp5d+FJeU5fyryVdyp86',
  '7ZDlXsqQX+E39ZqUOPQ0IdL/7lbzUkWw6Zuy//T09VxafOZSuFnN5W+AhlX2XAZhEAJWH9Vp9avHdU7J1T7JCktaHaM2',
  'COhr8vl5fQBibKZmWBk7c6VBQqTDmSmU+Wmq3Jn5YRPaCE/XQYh0dSbd436amm4nXbsxUWPicVaJaVPLKzlDiHRdppKo',
  'n6beXYn6WgWSHonNqF088Swh0o9lEof9NE1N7sQeOc2AZnbHHxwiRPqJGJ5nfBtm7MzHYXe9IvYpVe/cgne8sF3d8bml',
  '3PHCjk47ZLl3fJtf4XtbnQz2n5lAtMr4VoqYLvZdeGgNIdL7d6NlYC6zZHJuq/WS3bLcW1w2SYiajnYnJjU6dnigb3gg',
  'vuCHZHWXWrBbi/+QRP0yd7c6RvZ9yk0dThxM8JURUU+zE1beQoj0MzE0xbfA2JnJt90nrHyaUMeufU8t1z+WO/3DPYRa',
  's26GXaqKCUJN331NW7AuxtSs/5VZVLYQIn1HWgjNPLcYJ9T0hjwPC1OziltMESL9voeFqfmEWVQFCZG+LC2EZopbTBEi',
  'fcXDwtRcZRaRfEJNb0xJC6E5yi1aCJE+7mFhak4wi21pQqRflRZC8waz2N5DiPRpaWFqguXc4jYh0g0eFqammVlEawiR',
  '3isthGY/t0gTIv2sh4Wpuc4sqicINb0JpIXQ5DGLHWlCpNdIC6FZzy3+IEQ65GFhaoqYRU0pIdKfSguh+YJbDBEi/Z2H',
  'han5gVnUniNE+mdpITS/M4tHegg1fc8xaSE0r3CLCUKkT3pYmJrXucU0IdIed0Ro3mUWdaWEmr53h7QQGt5Z1U0TIr3H',
  'w8LUdDCLnUFCpHulhdAc4BY9hEgPeliYmpPMon6cEOlT0kJozjCLXUOESF+QFkLzAbc4R4j0xYyFX+N339e9WrOExi/0',
  'TqcdstzGz69TCk06GRbZKVX6rEDos31oBAFL1asc2YIa+s0v8gX9hRDptzz2xNScZW1WYwuhpre8FLMrcgc3sjbL+f8q',
  'xZyA/wE403hedx0AAA==',
]
