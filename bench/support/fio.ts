import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** A kind of requests, as fio names them. */
export interface FioCase {
  name: string;
  rw: 'read' | 'randread' | 'write' | 'randwrite';
  bs: string;
  depth: number;
  /** An fdatasync after so many writes; none when absent. */
  flushEvery?: number;
}

export interface FioResult {
  iops: number;
  gigabytesPerSecond: number;
  p50Us: number;
  p99Us: number;
}

interface Direction {
  iops: number;
  bw_bytes: number;
  clat_ns: { percentile: Record<string, number> };
}

/** The part of fio's report that is used. */
interface FioReport {
  jobs: { read: Direction; write: Direction }[];
}

/** Has fio make direct, asynchronous requests of a device or file for `seconds`. */
export async function measureFio(
  path: string,
  test: FioCase,
  size: { sizeBytes: number; seconds: number },
): Promise<FioResult> {
  // Asynchronous: what workers cannot answer, this thread does.
  const { stdout } = await promisify(execFile)('fio', [
    '--name=bench',
    '--output-format=json',
    '--ioengine=libaio',
    '--direct=1',
    '--time_based',
    '--randrepeat=1',
    `--filename=${path}`,
    `--size=${size.sizeBytes}`,
    `--runtime=${size.seconds}`,
    `--rw=${test.rw}`,
    `--bs=${test.bs}`,
    `--iodepth=${test.depth}`,
    ...(test.rw.endsWith('read') ? ['--readonly'] : []),
    ...(test.flushEvery === undefined ? [] : [`--fdatasync=${test.flushEvery}`]),
  ]);
  const [job] = (JSON.parse(stdout) as FioReport).jobs;
  const direction = test.rw.endsWith('read') ? job.read : job.write;
  const { percentile } = direction.clat_ns;
  return {
    iops: direction.iops,
    gigabytesPerSecond: direction.bw_bytes / 1e9,
    p50Us: percentile['50.000000'] / 1000,
    p99Us: percentile['99.000000'] / 1000,
  };
}

/** One line for people. */
export function describeFio(name: string, result: FioResult): string {
  const iops = `${Math.round(result.iops)} IOPS`.padStart(12);
  const rate = `${result.gigabytesPerSecond.toFixed(2)} GB/s`.padStart(11);
  const latency = `p50 ${result.p50Us.toFixed(0)} us, p99 ${result.p99Us.toFixed(0)} us`;
  return `${name.padEnd(52)}${iops}${rate}  ${latency}`;
}
