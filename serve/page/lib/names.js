// Names that a person understands: of kinds of models, of data sets and of tasks.

const KINDS = {
  gan: "Image generator (GAN)",
  vae: "Image generator (VAE)",
  vqvae: "Image generator (VQ-VAE)",
  sprites: "Game screen generator",
  autoencoder: "Autoencoder",
  ae: "Autoencoder",
  classifier: "Image classifier",
  style_fast: "Painter with one style",
  style_any: "Painter of any style",
  translator: "Picture translator",
  features: "Deep Dream network",
  photographs: "Searchable picture collection",
  dqn: "Game-playing agent",
  world: "Game inside a network",
};

const DATA = {
  digits: "handwritten digits",
  mnist: "handwritten digits (MNIST)",
  mnist5k: "handwritten digits (MNIST)",
  "fashion-mnist": "pictures of clothes (Fashion-MNIST)",
  cifar10: "photographs of objects (CIFAR-10)",
  svhn: "house numbers (SVHN)",
  photos: "crops of photographs",
  paintings: "paintings",
  screens: "screens of a game",
  docs: "texts of Python's documentation",
  ImageNet: "ImageNet's photographs",
};

export const TASKS = {
  generate: { title: "Generate", verb: "draws new pictures" },
  walk: { title: "Walk", verb: "turns pictures into each other" },
  paint: { title: "Paint", verb: "paints your photograph" },
  sketch: { title: "Draw", verb: "makes a picture of your drawing" },
  translate: { title: "Translate", verb: "translates a picture" },
  classify: { title: "Recognise", verb: "says what a picture shows" },
  rebuild: { title: "Rebuild", verb: "compresses and restores a picture" },
  find: { title: "Find similar", verb: "finds what is like your example" },
  map: { title: "Map", verb: "lays its pictures out by likeness" },
  dream: { title: "Dream", verb: "lets its network dream on a photograph" },
  play: { title: "Play", verb: "plays a game before your eyes" },
  inside: { title: "Play inside", verb: "lets you play inside the model" },
};

/** The groups of the gallery. `train` is the command that makes a first model of the group. */
export const GROUPS = [
  {
    title: "Make new pictures",
    first: ["generate"],
    train: "genray train gan --data mnist5k --out runs/digits",
  },
  {
    title: "Paint and dream",
    first: ["paint", "sketch", "translate", "dream"],
    train: "genray train style --out runs/painter",
  },
  {
    title: "Recognise",
    first: ["classify"],
    train: "genray train classifier --data mnist5k --out runs/reader",
  },
  {
    title: "Find and compare",
    first: ["find", "rebuild", "map"],
    train: "genray train ae --preset retrieval_mnist5k --out runs/finder",
  },
  {
    title: "Play",
    first: ["play", "inside"],
    train: "genray train dqn --preset road_runner_quick --out runs/player",
  },
];

export const isText = (model) => model.about.shape?.length === 1;
const isPicture = (model) => model.about.shape?.length === 3;

/** The tasks of a model, the most characteristic one first. */
export function tasksOf(model) {
  const has = (name) => model.functions.includes(name);
  const tasks = [];
  if (has("generate")) tasks.push("generate");
  if (has("generate") && model.kind !== "sprites") tasks.push("walk");
  if (model.kind.startsWith("style_")) tasks.push("paint");
  if (model.kind === "translator" && model.about.input === "edges") tasks.push("sketch");
  if (model.kind === "translator") tasks.push("translate");
  if (has("classify")) tasks.push("classify");
  if (has("encode") && (isPicture(model) || isText(model))) tasks.push("find");
  if (has("reconstruct") && isPicture(model)) tasks.push("rebuild");
  if (has("encode")) tasks.push("map");
  if (model.kind === "classifier" || model.kind === "features") tasks.push("dream");
  if (has("act") && model.about.game) tasks.push("play");
  if (model.kind === "world") tasks.push("inside");
  return tasks;
}

export const kindOf = (model) => KINDS[model.kind] ?? model.kind;

export const title = (text) =>
  text.replace(/_/g, " ").replace(/^./, (letter) => letter.toUpperCase());

/** One line that says what a model is. */
export function describe(model) {
  const { about } = model,
    parts = [];
  if (about.pictures) parts.push(`${about.pictures.toLocaleString("en")} pictures`);
  if (about.game)
    parts.push(model.kind === "world" ? title(about.game) : `plays ${title(about.game)}`);
  if (about.environment) parts.push(`plays ${about.environment}`);
  if (about.name && about.name !== "photographs")
    parts.push(`learned from ${DATA[about.name] ?? about.name}`);
  if (isPicture(model) && !about.pictures)
    parts.push(`${about.shape[2]} × ${about.shape[1]} pixels`);
  if (isText(model)) parts.push(`${about.shape[0].toLocaleString("en")} words`);
  if (about.network) parts.push(about.network);
  return parts.join(" · ") || TASKS[tasksOf(model)[0]]?.verb || "";
}

/** A name for a downloaded file. */
export const fileName = (...parts) => `${parts.join("-").replace(/[^\w.-]+/g, "_")}`;
