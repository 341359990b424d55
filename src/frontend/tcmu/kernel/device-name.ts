/** A TCMU device as its UIO device is named: tcm-user/HBA/DEVICE/SUBTYPE/CONFIG. */
export interface TcmuName {
  /** N of the folder user_N. */
  readonly hba: number;
  /** The device's folder. */
  readonly device: string;
  /** Which kind of handler the device is for: what stands before the first slash of dev_config. */
  readonly subtype: string;
  /** The rest of dev_config. */
  readonly config: string;
}

/** What overlaybd's devices say in dev_config: overlaybd/CONFIG[;ID]. */
export interface OverlaybdConfig {
  /** A config.v1.json. */
  readonly configPath: string;
  /** The device's id where it has one: snapshots are asked for by it. */
  readonly id: string | null;
}

/** Null for UIO devices of other drivers, and for a TCMU device without dev_config. */
export function parseUioName(name: string): TcmuName | null {
  const match = /^tcm-user\/(\d{1,10})\/([^/]+)\/([^/]+)\/(.*)$/s.exec(name.replace(/\n$/, ''));
  if (match === null) return null;
  const [, hba = '', device = '', subtype = '', config = ''] = match;
  return { hba: Number(hba), device, subtype, config };
}

/** Splits at the first semicolon, as the original does. */
export function parseOverlaybdConfig(config: string): OverlaybdConfig {
  const at = config.indexOf(';');
  if (at < 0) return { configPath: config, id: null };
  return { configPath: config.slice(0, at), id: config.slice(at + 1) || null };
}
