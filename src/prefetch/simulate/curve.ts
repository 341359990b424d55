import type { SimulationPoint } from './types.ts';

/** Keeps a bounded number of points, about evenly apart in time, however many there could be. */
export class Curve {
  readonly #pointsMax: number;
  #points: SimulationPoint[] = [];
  #stepMs = 1;
  #nextMs = 0;

  constructor(pointsMax: number) {
    this.#pointsMax = pointsMax;
  }

  /** Whether a point of this time is worth making. Times never decrease. */
  wants(timeMs: number): boolean {
    return timeMs >= this.#nextMs;
  }

  add(point: SimulationPoint): void {
    this.#points.push(point);
    if (this.#points.length >= this.#pointsMax) {
      this.#points = this.#points.filter((_, index) => index % 2 === 0);
      this.#stepMs *= 2;
    }
    this.#nextMs = point.timeMs + this.#stepMs;
  }

  /** The points, the last one included in any case. */
  finish(last: SimulationPoint): SimulationPoint[] {
    return [...this.#points, last];
  }
}
