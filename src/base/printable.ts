/** Control characters, and those that turn the direction of text or cannot be seen. */
const UNSAFE =
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text of an untrusted file or image for a terminal: what could deceive becomes '?'. */
export function printable(text: string): string {
  return text.replaceAll(UNSAFE, '?');
}
