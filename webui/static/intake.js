/** Every way in which files come: dropped, chosen, pasted, or by URL. */
import { byId } from "./dom.js";
import { takePhoto } from "./dialogs.js";

const FILES_MAX = 20_000;

/**
 * @param {(files: File[]) => void} take
 * @param {(url: string) => Promise<void>} takeUrl
 */
export function listen(take, takeUrl) {
  chooseBy("choose-files", "file-input", take);
  chooseBy("choose-folder", "folder-input", take);
  const photo = /** @type {HTMLInputElement} */ (byId("photo-input"));
  photo.addEventListener("change", () => takeFrom(photo, take));
  byId("take-photo").addEventListener("click", () => takePhoto(take));
  dropAnywhere(take, takeUrl);
  document.addEventListener("paste", (event) => paste(event, take, takeUrl));
  const url = /** @type {HTMLInputElement} */ (byId("url"));
  const add = async () => {
    const text = url.value.trim();
    if (!text) return url.focus();
    await takeUrl(text);
    url.value = "";
  };
  byId("add-url").addEventListener("click", add);
  url.addEventListener("keydown", (event) => event.key === "Enter" && add());
}

/**
 * @param {string} buttonId
 * @param {string} inputId
 * @param {(files: File[]) => void} take
 */
function chooseBy(buttonId, inputId, take) {
  const input = /** @type {HTMLInputElement} */ (byId(inputId));
  byId(buttonId).addEventListener("click", () => input.click());
  input.addEventListener("change", () => takeFrom(input, take));
}

/**
 * @param {HTMLInputElement} input
 * @param {(files: File[]) => void} take
 */
function takeFrom(input, take) {
  const files = [...(input.files ?? [])];
  input.value = "";
  if (files.length) take(files);
}

/**
 * @param {(files: File[]) => void} take
 * @param {(url: string) => Promise<void>} takeUrl
 */
function dropAnywhere(take, takeUrl) {
  const veil = byId("veil");
  let depth = 0;
  const show = (/** @type {number} */ change) => {
    depth = Math.max(0, depth + change);
    veil.classList.toggle("shown", depth > 0);
  };
  addEventListener("dragenter", (event) => { event.preventDefault(); show(1); });
  addEventListener("dragleave", () => show(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    show(-depth);
    if (!event.dataTransfer) return;
    const url = event.dataTransfer.getData("text/uri-list").split("\n")[0];
    const files = await filesOf(event.dataTransfer);
    if (files.length) take(files);
    else if (/^https?:/.test(url)) await takeUrl(url);
  });
}

/**
 * @param {ClipboardEvent} event
 * @param {(files: File[]) => void} take
 * @param {(url: string) => Promise<void>} takeUrl
 */
async function paste(event, take, takeUrl) {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    take(files);
    return;
  }
  if (event.target instanceof HTMLInputElement) return;
  const text = event.clipboardData?.getData("text/plain").trim() ?? "";
  if (/^https?:\/\/\S+$/.test(text)) await takeUrl(text);
}

/**
 * Files of a drop, folders walked. Entries must be taken before the first
 * await: the browser forgets the drop afterwards.
 * @param {DataTransfer} transfer
 * @returns {Promise<File[]>}
 */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry !== null && entry !== undefined);
  if (!entries.length) return [...transfer.files];
  /** @type {File[]} */
  const files = [];
  while (entries.length && files.length < FILES_MAX) {
    const entry = entries.shift();
    if (entry?.isFile) files.push(await fileOf(/** @type {FileSystemFileEntry} */ (entry)));
    else if (entry?.isDirectory) entries.push(...(await childrenOf(/** @type {FileSystemDirectoryEntry} */ (entry))));
  }
  return files;
}

/**
 * @param {FileSystemFileEntry} entry
 * @returns {Promise<File>}
 */
const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/**
 * @param {FileSystemDirectoryEntry} entry
 * @returns {Promise<FileSystemEntry[]>}
 */
async function childrenOf(entry) {
  const reader = entry.createReader();
  /** @type {FileSystemEntry[]} */
  const children = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return children;
    children.push(...some);
  }
}
