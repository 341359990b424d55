/** The oldest Node.js that runs this, as package.json's `engines` has it. */
const MAJOR_MIN = 22;
const MINOR_MIN = 19;

export const NODE_VERSION_MIN = `${MAJOR_MIN}.${MINOR_MIN}`;

/** Whether a Node.js of that version (`process.versions.node`) runs this. */
export function isNodeSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > MAJOR_MIN || (major === MAJOR_MIN && minor >= MINOR_MIN);
}
