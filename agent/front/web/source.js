// What can be published: camera, screen, or a generated test pattern.

const width = 640;
const height = 360;
const frameRate = 30;
const bars = ["#c0c0c0", "#c0c000", "#00c0c0", "#00c000", "#c000c0", "#c00000", "#0000c0"];

/**
 * Opens the source named kind: "camera", "screen" or "pattern".
 * @returns {Promise<{stream: MediaStream, close: () => void}>}
 */
export async function openSource(kind, room) {
  if (kind === "pattern") return pattern(room);
  const media = navigator.mediaDevices;
  if (!media) throw new Error("The browser gives camera and screen only to pages on https or localhost. The test pattern works here too.");
  const stream = kind === "screen"
    ? await media.getDisplayMedia({video: true, audio: true})
    : await media.getUserMedia({audio: true, video: {width: {ideal: 1280}, height: {ideal: 720}}});
  return {stream, close: () => stream.getTracks().forEach((track) => track.stop())};
}

// Colour bars with frame number and clock, and a beep at every full second.
function pattern(room) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", {alpha: false});
  let frame = 0;
  const draw = () => paint(context, room, frame++);
  draw();
  const timer = setInterval(draw, 1000 / frameRate);
  const stream = canvas.captureStream(frameRate);
  const sound = beeper();
  stream.addTrack(sound.track);
  return {
    stream,
    close() {
      clearInterval(timer);
      sound.close();
      stream.getTracks().forEach((track) => track.stop());
    },
  };
}

function paint(c, room, frame) {
  const bar = width / bars.length;
  bars.forEach((colour, i) => {
    c.fillStyle = colour;
    c.fillRect(Math.floor(i * bar), 0, Math.ceil(bar), height * 0.62);
  });
  c.fillStyle = "#101316";
  c.fillRect(0, height * 0.62, width, height * 0.38);

  // A hand that goes round in two seconds shows stutter that numbers hide.
  const angle = (frame / (2 * frameRate)) * 2 * Math.PI - Math.PI / 2;
  const x = width - 70, y = height * 0.81, r = 52;
  c.lineWidth = 4;
  c.strokeStyle = "#e8ebee";
  c.beginPath();
  c.arc(x, y, r, 0, 2 * Math.PI);
  c.moveTo(x, y);
  c.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  c.stroke();

  c.fillStyle = "#fff";
  c.textBaseline = "alphabetic";
  c.font = "600 64px ui-monospace, monospace";
  c.fillText(String(frame).padStart(6, "0"), 20, height * 0.83);
  c.font = "24px ui-monospace, monospace";
  c.fillText(`${new Date().toISOString().slice(11, 23)} UTC  ${room}`.slice(0, 34), 22, height * 0.94);
}

function beeper() {
  const audio = new AudioContext();
  const out = audio.createMediaStreamDestination();
  const gain = audio.createGain();
  const tone = audio.createOscillator();
  tone.frequency.value = 880;
  gain.gain.value = 0;
  tone.connect(gain).connect(out);
  tone.start();
  const beep = () => {
    gain.gain.setValueAtTime(0.2, audio.currentTime);
    gain.gain.setValueAtTime(0, audio.currentTime + 0.08);
  };
  const timer = setInterval(beep, 1000);
  // Opened by a link, the page may make no sound before it is touched.
  const touch = () => audio.resume();
  addEventListener("pointerdown", touch);
  addEventListener("keydown", touch);
  return {
    track: out.stream.getAudioTracks()[0],
    close() {
      clearInterval(timer);
      removeEventListener("pointerdown", touch);
      removeEventListener("keydown", touch);
      audio.close();
    },
  };
}
