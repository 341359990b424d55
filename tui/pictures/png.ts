import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { initWasm, Resvg } from '@resvg/resvg-wasm';

const FONTS = ['DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'];
/** Pixels of the PNG for one of the SVG. */
const ZOOM = 2;

/** Packages are found as imports are, wherever npm has put them. */
const { resolve } = createRequire(import.meta.url);
let isReady: Promise<void> | null = null;

/** An SVG picture as a PNG, in the fonts that come with this project. */
export async function svgToPng(svg: string): Promise<Uint8Array> {
  isReady ??= readFile(resolve('@resvg/resvg-wasm/index_bg.wasm')).then(initWasm);
  await isReady;
  const fonts = FONTS.map((name) => readFile(resolve(`dejavu-fonts-ttf/ttf/${name}`)));
  const picture = new Resvg(svg, {
    fitTo: { mode: 'zoom', value: ZOOM },
    font: { fontBuffers: await Promise.all(fonts), defaultFontFamily: 'DejaVu Sans' },
  });
  const rendered = picture.render();
  try {
    return rendered.asPng();
  } finally {
    rendered.free();
    picture.free();
  }
}
