/** What takes two cells of a terminal; close to East Asian Wide and emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const ASCII = /^[\x20-\x7e]*$/;
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}\p{M}]/gu;

/**
 * Text that somebody else wrote (names of files, images, layers; arguments) for a terminal or a picture:
 * control characters, marks that turn or join letters, and halves of characters become '?'.
 */
export function plain(text: string): string {
  return ASCII.test(text) ? text : text.replaceAll(UNSAFE, '?');
}

/** Cells that text without control characters takes. */
export function cellWidth(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += WIDE.test(character) ? 2 : 1;
  return width;
}

/** The beginning of a text, in at most so many cells; '…' says that there was more. */
export function clip(text: string, width: number): string {
  if (width <= 0) return '';
  if (cellWidth(text) <= width) return text;
  return `${takeCells(text, width - 1)}…`;
}

/** As `clip`, but it is the end that stays: what tells paths apart. */
export function clipStart(text: string, width: number): string {
  if (width <= 0) return '';
  if (cellWidth(text) <= width) return text;
  const characters = [...text];
  let start = characters.length;
  for (let used = 1; start > 0; start -= 1) {
    used += cellWidth(characters[start - 1]);
    if (used > width) break;
  }
  return `…${characters.slice(start).join('')}`;
}

/** Exactly so many cells, the text at the left. */
export function pad(text: string, width: number): string {
  const clipped = clip(text, width);
  return clipped + ' '.repeat(Math.max(0, width - cellWidth(clipped)));
}

/** Exactly so many cells, the text at the right. */
export function padStart(text: string, width: number): string {
  const clipped = clip(text, width);
  return ' '.repeat(Math.max(0, width - cellWidth(clipped))) + clipped;
}

function takeCells(text: string, width: number): string {
  let used = 0;
  let taken = '';
  for (const character of text) {
    used += cellWidth(character);
    if (used > width) break;
    taken += character;
  }
  return taken;
}
