/** Words longer than this are not compared: what a person mistyped is short. */
const LENGTH_MAX = 64;

/**
 * The word that was most likely meant by `text`, or null when none is near: at most a third of its
 * letters differ, whatever their case.
 */
export function closestWord(text: string, words: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Infinity;
  for (const word of words) {
    if (word.length > LENGTH_MAX || text.length > LENGTH_MAX) continue;
    const distance = editDistance(text.toLowerCase(), word.toLowerCase());
    if (distance < bestDistance && distance <= Math.ceil(word.length / 3)) {
      best = word;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein's: letters put in, left out or replaced. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 0; i < from.length; i += 1) {
    const next = [i + 1];
    for (let j = 0; j < to.length; j += 1) {
      const replaced = row[j] + (from[i] === to[j] ? 0 : 1);
      next.push(Math.min(replaced, row[j + 1] + 1, next[j] + 1));
    }
    row = next;
  }
  return row[to.length];
}
