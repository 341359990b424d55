import type { HostCost } from './types.ts';

/**
 * Of a machine with two cores on which guest, client, registry and delay line run (`npm run bench
 * cold-start`). A request costs what coalesce-options.ts takes it to cost. The other two were fitted to the
 * replayed starts of nginx, redis and java-hello in traces/measured.json, in steps of 20 ms and of 2 ms a
 * MiB; the other four programs of that file had no part in that fit, and test it. They hold for the machine
 * and the hour of that file: docs/trace-lab.md has what another hour took.
 */
export const HOST_COST: HostCost = { attachMs: 100, requestMs: 1, mibMs: 10 };

/** What the link alone allows. */
export const HOST_COST_NONE: HostCost = { attachMs: 0, requestMs: 0, mibMs: 0 };
