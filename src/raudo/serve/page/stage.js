// Where an image or a camera goes in and boxes come out.

import { byId, make, tell } from "./dom.js";

const STAGES = ["decode", "queue", "infer", "select"];
const CAMERA = { video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "environment" } };
const QUALITY = 0.85;

let found = [];
let size = [0, 0];
let pointed = null;
let stream = null;
let shown = null;

/** Give each class a colour of its own: the golden angle keeps neighbours apart. */
const colour = (label) => `hsl(${(label * 137.508 + 225) % 360} 85% 60%)`;

/** Send an encoded image; return the reply, or throw an error that says why there is none. */
async function detect(blob) {
  const answer = await fetch("v1/detect", {
    method: "POST", body: blob, headers: { "Content-Type": blob.type || "application/octet-stream" },
  });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const error = new Error(content.error ?? `the service answered ${answer.status}`);
  error.retryAfter = Number(answer.headers.get("Retry-After")) || 0;
  throw error;
}

/** Draw the boxes that are sure enough, in the pixels of the screen. */
function drawBoxes() {
  const canvas = byId("boxes");
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const scale = width / (size[0] || 1);
  context.font = "600 13px ui-sans-serif, system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const each of sure().toReversed()) drawBox(context, each, scale, width);
}

function drawBox(context, each, scale, width) {
  const [left, top, right, bottom] = each.box.map((value) => value * scale);
  const faded = pointed !== null && pointed !== each;
  context.globalAlpha = faded ? 0.25 : 1;
  context.strokeStyle = context.fillStyle = colour(each.label);
  context.lineWidth = pointed === each ? 4 : 2;
  context.beginPath();
  context.roundRect(left, top, right - left, bottom - top, 5);
  context.stroke();
  context.globalAlpha = faded ? 0.02 : pointed === each ? 0.22 : 0.08;
  context.fill();
  context.globalAlpha = faded ? 0.25 : 1;
  const text = `${each.name} ${Math.round(each.score * 100)}`;
  const wide = context.measureText(text).width + 12;
  const x = Math.min(Math.max(0, left - 1), Math.max(0, width - wide));
  const y = top >= 22 ? top - 21 : top + 1;
  context.beginPath();
  context.roundRect(x, y, wide, 20, 5);
  context.fill();
  context.fillStyle = "#0b0e13";
  context.fillText(text, x + 6, y + 10.5);
  context.globalAlpha = 1;
}

/** Return what is at least as sure as the slider says. */
function sure() {
  const least = byId("least").value / 100;
  return found.filter((each) => each.score >= least);
}

function listFound() {
  const list = sure().slice(0, 100).map((each) => {
    const swatch = make("i", "swatch");
    swatch.style.background = colour(each.label);
    const bar = make("i", "score");
    bar.style.width = `${each.score * 100}%`;
    const item = make("li", "", swatch, make("span", "name", each.name), make("span", "track", bar),
      make("span", "percent", `${Math.round(each.score * 100)} %`));
    item.addEventListener("pointerenter", () => { pointed = each; drawBoxes(); });
    item.addEventListener("pointerleave", () => { pointed = null; drawBoxes(); });
    return item;
  });
  byId("found").replaceChildren(...list);
  byId("count").textContent = sure().length;
}

function showTiming(stages) {
  byId("timing").hidden = !stages;
  if (!stages) return;
  byId("strip").replaceChildren(...STAGES.map((name) => {
    const part = make("i", `stage ${name}`);
    part.style.flexGrow = Math.max(stages[name], 0.001);
    return part;
  }));
  byId("stages").replaceChildren(...STAGES.map((name) =>
    make("li", "", make("i", `stage ${name}`), `${name} ${tell(stages[name])} ms`)));
}

function showReply(reply, took, label) {
  byId("problem").hidden = true;
  found = reply.detections;
  pointed = null;
  byId("took").replaceChildren(`${tell(took)} `, make("small", "", label === "Camera" ? "FPS" : "ms"));
  byId("took-label").textContent = label;
  showTiming(reply.stages_ms);
  byId("answered-by").textContent = `by ${reply.variant}, version ${reply.version}`;
  listFound();
  drawBoxes();
}

function showProblem(error) {
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
}

/** Show the scene with the picture or the video in it, and nothing of what was there before. */
function enter(element) {
  byId("took").textContent = "–";
  byId("answered-by").textContent = "";
  showTiming(null);
  for (const id of ["picture", "video"]) byId(id).hidden = byId(id) !== element;
  byId("scene").style.setProperty("--aspect", size[0] / size[1]);
  byId("welcome").hidden = byId("terminal").hidden = true;
  byId("scene").hidden = false;
  byId("again").hidden = false;
  found = [];
  listFound();
  drawBoxes();
}

/** Detect in an image file and show it. */
async function showImage(blob) {
  stopCamera();
  const picture = byId("picture");
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(blob);
  picture.src = shown;
  try {
    await picture.decode();
  } catch {
    showProblem(new Error("the browser cannot show this file; is it an image?"));
    return;
  }
  size = [picture.naturalWidth, picture.naturalHeight];
  enter(picture);
  byId("stage").classList.add("busy");
  const start = performance.now();
  try {
    const reply = await detect(blob);
    showReply(reply, performance.now() - start, "Answered in");
  } catch (error) {
    showProblem(error);
  }
  byId("stage").classList.remove("busy");
}

/** Let go of the camera; its last frame stays. */
function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("camera-again").textContent = "Camera";
}

/** Return the camera's stream, or throw an error that says why there is none. */
async function askForCamera() {
  if (!navigator.mediaDevices) throw new Error("browsers lend it to https:// and localhost only");
  return navigator.mediaDevices.getUserMedia(CAMERA);
}

/** Detect in the frames of the camera, one after the other: the next goes when a reply is there. */
async function startCamera() {
  stopCamera();
  try {
    stream = await askForCamera();
  } catch (error) {
    showProblem(new Error(`no camera: ${error.message}`));
    return;
  }
  const video = byId("video");
  video.srcObject = stream;
  await video.play();
  size = [video.videoWidth, video.videoHeight];
  enter(video);
  const mine = stream;
  mine.getVideoTracks()[0].addEventListener("ended", () => {
    stopCamera();
    showProblem(new Error("the camera has gone"));
  });
  byId("camera-again").textContent = "Stop";
  const frame = document.createElement("canvas");
  [frame.width, frame.height] = size;
  let pace = 0;
  while (stream === mine) {
    const start = performance.now();
    frame.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => { frame.toBlob(done, "image/jpeg", QUALITY); });
    try {
      const reply = await detect(blob);
      if (stream !== mine) return;
      const seconds = (performance.now() - start) / 1000;
      pace = pace ? 0.9 * pace + 0.1 / seconds : 1 / seconds;
      showReply(reply, pace, "Camera");
    } catch (error) {
      if (stream !== mine) return;
      showProblem(error);
      await new Promise((done) => { setTimeout(done, 1000 * Math.max(0.5, error.retryAfter ?? 0)); });
    }
    await new Promise(requestAnimationFrame);
  }
}

/** Let images come in: dropped, pasted, chosen, or from the camera. */
export function startStage() {
  const stage = byId("stage");
  const file = byId("file");
  const take = (files) => {
    const image = [...files].find((each) => each.type.startsWith("image/"));
    if (image) showImage(image);
    else if (files.length) showProblem(new Error("that is no image"));
  };
  for (const id of ["choose", "another"]) byId(id).addEventListener("click", () => file.click());
  byId("camera").addEventListener("click", startCamera);
  byId("camera-again").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  file.addEventListener("change", () => { take(file.files); file.value = ""; });
  document.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) stage.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  byId("least").addEventListener("input", () => {
    byId("least-shown").textContent = `${byId("least").value} %`;
    listFound();
    drawBoxes();
  });
  new ResizeObserver(drawBoxes).observe(byId("boxes"));
}
