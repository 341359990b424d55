import type { ConvertProgress } from '../image/convert/context.ts';
import { platformText } from '../image/convert/platforms.ts';
import { formatBytes, ProgressLine } from './terminal.ts';

/**
 * Tells on standard error how a conversion proceeds: a line of its own for each layer that is done
 * and, on a terminal, one that is written over.
 */
export class ConvertReport implements ConvertProgress {
  readonly #line = new ProgressLine();
  readonly #startedMs = performance.now();
  #layers = 0;
  #layersDone = 0;
  #storedBytes = 0;
  #fetchedBytes = 0;
  #appliedBytes = 0;
  #committedBytes = 0;

  get elapsedSeconds(): number {
    return (performance.now() - this.#startedMs) / 1000;
  }

  begun: ConvertProgress['begun'] = ({ layers }) => {
    this.#layers += layers.length;
    for (const { input } of layers) this.#storedBytes += input?.descriptor.size ?? 0;
  };

  fetched: ConvertProgress['fetched'] = (bytes) => {
    this.#fetchedBytes += bytes;
    this.#show();
  };

  applied: ConvertProgress['applied'] = (bytes) => {
    this.#appliedBytes += bytes;
    this.#show();
  };

  committed: ConvertProgress['committed'] = (bytes) => {
    this.#committedBytes += bytes;
    this.#show();
  };

  finished: ConvertProgress['finished'] = ({ image, position, layer }) => {
    this.#layersDone += 1;
    this.#line.clear();
    const { digest, sizeBytes, dataBytes, from, put } = layer;
    process.stderr.write(
      `${platformText(image.platform)}: layer ${position + 1}/${image.layers.length} ${digest} ` +
        `${formatBytes(sizeBytes)} (${formatBytes(dataBytes)} of data), ${from}, ${put}\n`,
    );
  };

  /** Ends the line that is written over. */
  clear(): void {
    this.#line.clear();
  }

  #show(): void {
    const rate = this.#appliedBytes / Math.max(this.elapsedSeconds, 0.001);
    this.#line.show(
      `${this.#layersDone}/${this.#layers} layers, ` +
        `${formatBytes(this.#fetchedBytes)} of ${formatBytes(this.#storedBytes)} read, ` +
        `${formatBytes(this.#appliedBytes)} applied, ` +
        `${formatBytes(this.#committedBytes)} compressed, ${formatBytes(rate)}/s`,
    );
  }
}
