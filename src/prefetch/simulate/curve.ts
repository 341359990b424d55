import type { SimulationPoint } from './types.ts';

/** Keeps a bounded number of points, about evenly apart in time, however many are offered. */
export class Curve {
  readonly #pointsMax: number;
  #points: SimulationPoint[] = [];
  #stepMs = 1;
  #nextMs = 0;

  constructor(pointsMax: number) {
    this.#pointsMax = pointsMax;
  }

  /** Offers a point; it is made only when one is wanted. Times never decrease. */
  offer(timeMs: number, make: () => SimulationPoint): void {
    if (timeMs < this.#nextMs) return;
    this.#points.push(make());
    if (this.#points.length >= this.#pointsMax) {
      this.#points = this.#points.filter((_, index) => index % 2 === 0);
      this.#stepMs *= 2;
    }
    this.#nextMs = timeMs + this.#stepMs;
  }

  /** The points, the last one included in any case. */
  finish(last: SimulationPoint): SimulationPoint[] {
    return [...this.#points, last];
  }
}
