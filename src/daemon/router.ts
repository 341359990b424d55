/** A method and a path, whose `:id` segment (at most one) stands for any text. */
export interface Route<Use> {
  method: 'GET' | 'POST';
  path: string;
  use: Use;
}

export type RouteMatch<Use> =
  | { kind: 'found'; use: Use; id: string }
  /** The path exists, with other methods. */
  | { kind: 'otherMethod'; allowed: string[] }
  | { kind: 'none' };

/** Finds what a request asks for. Percent escapes in `:id` are decoded; the query is ignored. */
export function matchRoute<Use>(
  routes: readonly Route<Use>[],
  method: string,
  url: string,
): RouteMatch<Use> {
  const [path = ''] = url.split('?', 1);
  const allowed: string[] = [];
  for (const route of routes) {
    const id = matchPath(route.path, path);
    if (id === null) continue;
    if (route.method === method) return { kind: 'found', use: route.use, id };
    allowed.push(route.method);
  }
  return allowed.length > 0 ? { kind: 'otherMethod', allowed } : { kind: 'none' };
}

/** The text in place of `:id`, '' without one, null when the path is another. */
function matchPath(pattern: string, path: string): string | null {
  const expected = pattern.split('/');
  const found = path.split('/');
  if (expected.length !== found.length) return null;
  let id = '';
  for (const [index, segment] of expected.entries()) {
    const text = found[index] ?? '';
    if (segment === ':id' && text !== '') {
      const decoded = decode(text);
      if (decoded === null) return null;
      id = decoded;
    } else if (segment !== text) {
      return null;
    }
  }
  return id;
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
