// An image with 256 colours at most: those that it has most of, and for each other one the nearest.
async (address) => {
  const image = await createImageBitmap(await (await fetch(address)).blob());
  const { width, height } = image, canvas = new OffscreenCanvas(width, height), drawn = canvas.getContext("2d");
  drawn.drawImage(image, 0, 0);
  const pixels = new Uint32Array(drawn.getImageData(0, 0, width, height).data.buffer);
  const often = new Map();
  for (const pixel of pixels) often.set(pixel, (often.get(pixel) ?? 0) + 1);
  const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const apart = (one, other) => one.reduce((sum, part, place) => sum + (part - other[place]) ** 2, 0);
  const palette = [], nearest = new Map();
  for (const [pixel] of [...often].sort((one, other) => other[1] - one[1])) {
    const own = parts(pixel);
    let best = 0;
    for (let place = 1; place < palette.length; place++) if (apart(own, palette[place]) < apart(own, palette[best])) best = place;
    if (palette.length < 256 && (!palette.length || apart(own, palette[best]) > 60)) best = palette.push(own) - 1;
    nearest.set(pixel, best);
  }
  let rows = "";
  for (const pixel of pixels) rows += String.fromCharCode(nearest.get(pixel));
  return { width, height, palette: palette.flat(), rows: btoa(rows) };
}
