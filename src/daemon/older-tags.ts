/** What stands for the referrers or the signature of an object, and is no image. */
const REFERRERS_TAG = /^sha256-[0-9a-f]{64}/;

const { compare } = new Intl.Collator('en', { numeric: true });

/**
 * A repository's tags, the likeliest to be the last version before `own` first. Nothing tells when a tag
 * was made, so their names are compared, numbers in them as numbers: first those before `own`, the
 * nearest first, then those behind it from the last one; from the last one without `own`.
 */
export function orderOlderTags(tags: readonly string[], own: string | null): string[] {
  const newestFirst = tags
    .filter((tag) => tag !== own && !REFERRERS_TAG.test(tag))
    .sort((a, b) => compare(b, a));
  if (own === null) return newestFirst;
  const isBefore = (tag: string): boolean => compare(tag, own) < 0;
  return [...newestFirst.filter(isBefore), ...newestFirst.filter((tag) => !isBefore(tag))];
}
