import type { Blob } from '../blob/blob.ts';
import { RemoteBlob } from '../blob/fetch/remote-blob.ts';
import type { Clock } from '../base/clock.ts';
import type { DeviceFacts } from '../prefetch/metrics.ts';
import type { Replay } from '../prefetch/replay.ts';
import type { AnyTrace } from '../trace/overlaybd/any-trace.ts';
import type { AttachSpans } from './attach-spans.ts';

/** What metrics tell of an open device beside its quality. */
export function deviceFacts(
  clock: Clock,
  opened: {
    blobs: readonly Blob[];
    replay: Replay | null;
    trace: AnyTrace | null;
    spans: AttachSpans;
  },
): DeviceFacts {
  const { blobs, replay, trace, spans } = opened;
  const recordedAtMs = trace?.kind === 'replaybd' ? trace.trace.recording.startedAtMs : 0;
  return {
    replay,
    untouchedBytes: () =>
      blobs.reduce((sum, blob) => {
        if (!(blob instanceof RemoteBlob)) return sum;
        const { prefetchedBytes, prefetchedTouchedBytes } = blob.counters;
        return sum + prefetchedBytes - prefetchedTouchedBytes;
      }, 0),
    // A trace that was made rather than recorded has no such time.
    traceAgeSeconds: () =>
      recordedAtMs > 0 ? Math.max(0, clock.wallMs() - recordedAtMs) / 1000 : null,
    lastDemandMissSeconds: () => spans.lastDemandMissSeconds,
  };
}
