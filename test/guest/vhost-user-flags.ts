export const MEMORY_MIB = 1024;

/** QEMU's flags for a disk behind a socket; see docs/vhost-user.md. */
export function diskFlags(socket: string): string[] {
  return [
    // One for each of the disk's queues.
    ...['-smp', '2'],
    ...['-machine', 'memory-backend=mem'],
    ...['-object', `memory-backend-memfd,id=mem,size=${MEMORY_MIB}M,share=on`],
    ...['-chardev', `socket,id=disk,path=${socket},reconnect=1`],
    ...['-device', 'vhost-user-blk-pci,chardev=disk,num-queues=2'],
  ];
}
