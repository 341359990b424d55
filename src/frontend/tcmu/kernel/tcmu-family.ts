import { ReplaybdError } from '../../../base/errors.ts';
import { watchReadable, type FdWatch } from '../../../../native/fd-watch.ts';
import { NetlinkSocket } from '../../../../native/netlink.ts';
import {
  decodeAttributes,
  decodeMessages,
  encodeMessage,
  type Attributes,
  type NetlinkMessage,
} from './netlink-message.ts';

const NETLINK_GENERIC = 16;
/** The family that knows families, and what it is asked (linux/genetlink.h). */
const CONTROL_FAMILY = 0x10;
const GET_FAMILY = 3;
const CONTROL = { familyId: 1, familyName: 2, groups: 7, groupName: 1, groupId: 2 } as const;

const FAMILY_NAME = 'TCM-USER';
const GROUP_NAME = 'config';

/** linux/target_core_user.h, `tcmu_genl_cmd`. The answer to a command is its number plus 3. */
const COMMAND = { added: 1, removed: 2, reconfigured: 3, setFeatures: 7 } as const;
const DONE = 3;

/** linux/target_core_user.h, `tcmu_genl_attr`. */
const ATTRIBUTE = {
  device: 1,
  minor: 2,
  config: 4,
  sizeBytes: 5,
  writeCache: 6,
  status: 7,
  deviceIndex: 8,
  repliesSupported: 9,
} as const;

export type TcmuEventKind = 'added' | 'removed' | 'reconfigured';

/** What the kernel tells of a device, and waits to have acknowledged. */
export interface TcmuEvent {
  readonly kind: TcmuEventKind;
  /** What names the device in the answer. */
  readonly deviceIndex: number;
  /** N of /dev/uioN. */
  readonly minor: number;
  /** As the UIO device is named: tcm-user/HBA/DEVICE/CONFIG. */
  readonly name: string;
  /** Of `reconfigured`: what is to change; the others are undefined. */
  readonly change: { config?: string; sizeBytes?: number; writeCache?: boolean };
}

/** The kernel's TCM-USER family on a netlink socket. */
export class TcmuFamily {
  readonly socket: NetlinkSocket;
  readonly #id: number;
  readonly #group: number;
  #sequence = 0;

  /**
   * Errors: ERR_TCMU_MODULE when the kernel has no such family, and errnos. `receiveBytes` is the
   * room for events that nobody has read yet.
   */
  constructor(receiveBytes: number) {
    this.socket = new NetlinkSocket(NETLINK_GENERIC, receiveBytes);
    try {
      const family = this.#resolve();
      this.#id = family.id;
      this.#group = family.group;
    } catch (error) {
      this.socket.close();
      throw error;
    }
  }

  /**
   * Receives events from now on, and has the kernel wait for answers: for devices that are made
   * from now on, unless they say `nl_reply_supported=-1`.
   */
  listen(): void {
    this.join();
    this.#send(COMMAND.setFeatures, [[ATTRIBUTE.repliesSupported, Buffer.from([1])]]);
  }

  /** Receives events, which nobody has to answer because of it. */
  join(): void {
    this.socket.join(this.#group);
  }

  /** Calls `onEvents` whenever `receive` has something. */
  watch(onEvents: () => void): FdWatch {
    return watchReadable(this.socket.fd, onEvents);
  }

  /** What has arrived. Errors: ERR_ENOBUFS when events were lost, ERR_NETLINK_MESSAGE. */
  receive(): { events: TcmuEvent[]; refusals: number[] } | null {
    const datagram = this.socket.receive();
    if (datagram === null) return null;
    const messages = decodeMessages(datagram);
    return {
      events: messages.map((message) => this.#eventOf(message)).filter((event) => event !== null),
      refusals: messages.map(({ error }) => error).filter((error) => error !== 0),
    };
  }

  /** Answers an event: `status` is 0, or an errno below zero with which the kernel then fails. */
  answer(kind: TcmuEventKind, deviceIndex: number, status: number): void {
    const index = Buffer.alloc(4);
    index.writeUInt32LE(deviceIndex);
    const result = Buffer.alloc(4);
    result.writeInt32LE(status);
    this.#send(COMMAND[kind] + DONE, [
      [ATTRIBUTE.status, result],
      [ATTRIBUTE.deviceIndex, index],
    ]);
  }

  close(): void {
    this.socket.close();
  }

  #send(command: number, attributes: readonly (readonly [number, Buffer])[]): void {
    this.#sequence += 1;
    this.socket.send(encodeMessage(this.#id, command, this.#sequence, attributes));
  }

  #resolve(): { id: number; group: number } {
    const name = Buffer.from(`${FAMILY_NAME}\0`);
    this.socket.send(encodeMessage(CONTROL_FAMILY, GET_FAMILY, 0, [[CONTROL.familyName, name]]));
    // The kernel has answered when the request returns.
    const datagram = this.socket.receive();
    const message = datagram === null ? undefined : decodeMessages(datagram).at(0);
    const id = message?.attributes.get(CONTROL.familyId)?.readUInt16LE(0);
    const group = groupIn(message?.attributes.get(CONTROL.groups));
    if (id !== undefined && group !== undefined) return { id, group };
    throw new ReplaybdError(
      'ERR_TCMU_MODULE',
      `the kernel has no netlink family ${FAMILY_NAME}. Load it with: modprobe target_core_user`,
      { errno: 'ENOENT' },
    );
  }

  #eventOf({ type, command, attributes }: NetlinkMessage): TcmuEvent | null {
    if (type !== this.#id) return null;
    const kind = kindOf(command);
    const deviceIndex = attributes.get(ATTRIBUTE.deviceIndex)?.readUInt32LE(0);
    const minor = attributes.get(ATTRIBUTE.minor)?.readUInt32LE(0);
    const name = textOf(attributes.get(ATTRIBUTE.device));
    if (kind === null || deviceIndex === undefined || minor === undefined || name === undefined) {
      return null;
    }
    return { kind, deviceIndex, minor, name, change: changeIn(attributes) };
  }
}

function groupIn(groups: Buffer | undefined): number | undefined {
  if (groups === undefined) return undefined;
  for (const value of decodeAttributes(groups).values()) {
    const group = decodeAttributes(value);
    if (textOf(group.get(CONTROL.groupName)) === GROUP_NAME) {
      return group.get(CONTROL.groupId)?.readUInt32LE(0);
    }
  }
  return undefined;
}

function kindOf(command: number): TcmuEventKind | null {
  if (command === COMMAND.added) return 'added';
  if (command === COMMAND.removed) return 'removed';
  return command === COMMAND.reconfigured ? 'reconfigured' : null;
}

function changeIn(attributes: Attributes): TcmuEvent['change'] {
  const config = textOf(attributes.get(ATTRIBUTE.config));
  const size = attributes.get(ATTRIBUTE.sizeBytes)?.readBigUInt64LE(0);
  const writeCache = attributes.get(ATTRIBUTE.writeCache)?.[0];
  return {
    ...(config === undefined ? {} : { config }),
    ...(size === undefined ? {} : { sizeBytes: Number(size) }),
    ...(writeCache === undefined ? {} : { writeCache: writeCache !== 0 }),
  };
}

/** Without the zero that ends it. */
function textOf(value: Buffer | undefined): string | undefined {
  return value?.toString('utf8').split('\0', 1)[0];
}
