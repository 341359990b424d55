import { Agent } from 'node:http';
import { Agent as TlsAgent } from 'node:https';
import {
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Span as Open,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, TracerProvider, type SpanExporter } from '@opentelemetry/sdk-trace';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { publicUrl } from '../registry/errors.ts';
import type { OpenSpan, Span, SpanSink } from './attach-spans.ts';
import { spanLimits } from './span-limits.ts';

/** A sink that is to be closed: what it still holds is sent then, within a bound. */
export interface OtlpSpans extends SpanSink {
  close(): Promise<void>;
}

/**
 * Sends spans to an OpenTelemetry collector by OTLP over HTTP; `endpoint` is the whole URL, such as
 * http://127.0.0.1:4318/v1/traces. Spans that cannot be sent are a line in the log, and lost.
 */
export function openOtlp(endpoint: string, log: Logger): OtlpSpans {
  const agent = endpoint.startsWith('https:') ? new TlsAgent() : new Agent();
  const exporter = new OTLPTraceExporter({
    url: endpoint,
    timeoutMillis: spanLimits.exportMsMax,
    httpAgentOptions: () => agent,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'replaybd', 'process.pid': process.pid }),
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: tellingFailures(exporter, publicUrl(endpoint), log),
        scheduledDelayMillis: spanLimits.batchMs,
        exportTimeoutMillis: spanLimits.exportMsMax,
      }),
    ],
  });
  const tracer = provider.getTracer('replaybd');
  return {
    begin: (name, startMs) => {
      const root = tracer.startSpan(name, { startTime: startMs, kind: SpanKind.INTERNAL });
      const context = trace.setSpan(ROOT_CONTEXT, root);
      return {
        child: (span) => {
          end(tracer.startSpan(span.name, { startTime: span.startMs }, context), span);
        },
        end: (span) => end(root, span),
      } satisfies OpenSpan;
    },
    close: async () => {
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(late.resolve, spanLimits.closeMsMax);
      await Promise.race([provider.shutdown().catch(() => undefined), late.promise]);
      clearTimeout(timer);
      // A collector that does not answer is not waited for.
      agent.destroy();
    },
  };
}

function end(open: Open, { endMs, attributes, failure }: Omit<Span, 'name' | 'startMs'>): void {
  for (const [key, value] of Object.entries(attributes)) {
    open.setAttribute(`replaybd.${key}`, value);
  }
  if (failure !== null) open.setStatus({ code: SpanStatusCode.ERROR, message: failure });
  open.end(endMs);
}

/** An exporter that always succeeds, and tells the log when it did not. */
function tellingFailures(exporter: SpanExporter, endpoint: string, log: Logger): SpanExporter {
  return {
    export: (spans, done) => {
      exporter.export(spans, ({ code, error }) => {
        if (code !== 0) {
          const why = error === undefined ? 'no reason given' : messageOf(error);
          log.warn({ endpoint, spans: spans.length }, `spans cannot be sent, and are lost: ${why}`);
        }
        done({ code: 0 });
      });
    },
    shutdown: async () => await exporter.shutdown(),
    forceFlush: async () => await exporter.forceFlush?.(),
  };
}
