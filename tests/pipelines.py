"""What the pipelines' own scripts do with the files that they are given: their formulas, in our words.

Each names the repository and the script. Dense CRFs and random walks are left out, as they do not read files.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def content_of(path):
    """Read a dict as all of them do."""
    return np.load(path, allow_pickle=True).item()


def with_background(maps, score):
    return np.pad(maps, ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=score)


def labels_of(content):
    """The label of each plane: 0, then key + 1."""
    return np.pad(content["keys"] + 1, (1, 0), mode="constant")


def irn_labels(path, threshold):
    """jiwoon-ahn/irn, step/eval_cam.py; rulixiang/ToCo, tools/eval_cam.py."""
    content = content_of(path)
    return labels_of(content)[np.argmax(with_background(content["high_res"], threshold), axis=0)]


def irn_confident_labels(path, background, foreground):
    """jiwoon-ahn/irn, step/cam_to_ir_label.py, without its CRF."""
    content = content_of(path)
    sure, maybe = (
        labels_of(content)[np.argmax(with_background(content["high_res"], score), axis=0)]
        for score in (foreground, background)
    )
    labels = sure.copy()
    labels[sure == 0] = 255
    labels[sure + maybe == 0] = 0
    return labels


def irn_walked_labels(path, size, threshold):
    """jiwoon-ahn/irn, step/make_sem_seg_labels.py, with a random walk that stays where it is."""
    content = content_of(path)
    cam = content["cam"].cpu()
    count, height, width = cam.shape
    walked = torch.matmul(cam.view(count, -1), torch.eye(height * width)).view(count, 1, height, width)
    upsampled = F.interpolate(walked, scale_factor=4, mode="bilinear", align_corners=False)
    upsampled = upsampled[..., 0, : size[0], : size[1]]
    planes = F.pad(upsampled / torch.max(upsampled), (0, 0, 0, 0, 1, 0), value=threshold)
    return labels_of(content)[torch.argmax(planes, dim=0).numpy()]


def irn_instance_classes(path, instances):
    """jiwoon-ahn/irn, step/make_ins_seg_labels.py: the class of each instance, and the maps of all."""
    content = content_of(path)
    masks = torch.from_numpy(np.expand_dims(np.ones((instances, *content["cam"].shape[1:])), 0).astype(np.float32))
    return np.repeat(np.asarray(content["keys"]), instances), torch.unsqueeze(content["cam"].cpu(), 1) * masks


def psa_labels(path, threshold, count=21):
    """YudeWang/SEAM and xulianuwa/MCTformer, evaluation.py --type npy."""
    content = content_of(path)
    height, width = next(iter(content.values())).shape
    planes = np.zeros((count, height, width), np.float32)
    for key, scores in content.items():
        planes[key + 1] = scores
    planes[0] = threshold
    return np.argmax(planes, axis=0).astype(np.uint8)


def psa_walk_input(path, size, alpha):
    """jiwoon-ahn/psa and YudeWang/SEAM, infer_aff.py: what the random walk begins with."""
    planes = np.zeros((21, *size), np.float32)
    for key, scores in content_of(path).items():
        planes[key + 1] = scores
    planes[0] = (1 - np.max(planes[1:], 0)) ** alpha
    return planes


def psa_affinity_labels(low, high):
    """jiwoon-ahn/psa and YudeWang/SEAM, voc12/data.py: plane numbers of the CRF's scores at two alphas."""
    both = [np.array(list(content_of(path).values())) for path in (low, high)]
    low, high = (np.argmax(scores, axis=0) for scores in both)
    labels = low.copy()
    labels[low == 0] = 255
    labels[high == 0] = 0
    return labels


def clip_es_labels(path, threshold):
    """linyq2117/CLIP-ES, eval_cam.py --cam_type attn_highres: a threshold below 1, or a power of the background."""
    content = content_of(path)
    maps = content["attn_highres"]
    if threshold < 1:
        planes = with_background(maps, threshold)
    else:
        planes = np.concatenate((np.power(1 - np.max(maps, axis=0, keepdims=True), threshold), maps), axis=0)
    return labels_of(content)[np.argmax(planes, axis=0)].astype(np.uint8)


class WsolEvaluation:
    """clovaai/wsolevaluation: inference.py, and the BoxEvaluator and MaskEvaluator of evaluation.py (Choe et al.)."""

    def __init__(self, interval, side=224):
        self.thresholds, self.side = np.arange(0, 1, interval), side
        self.hits = {multi: {iou: np.zeros(len(self.thresholds)) for iou in (30, 50, 70)} for multi in (False, True)}
        self.count = 0
        self.edges = np.append(self.thresholds, [1.0, 2.0, 3.0])
        self.true, self.false = np.zeros((2, len(self.edges) - 1))

    @staticmethod
    def scoremap(root, image_id):
        """Read a score map of --scoremap_root, and check it."""
        scores = torch.from_numpy(np.load(f"{root}/{image_id}.npy")).numpy().astype(float)  # what its DataLoader does
        assert scores.ndim == 2, "Scoremap must be a 2D array"
        assert not np.isnan(scores).any(), "Scoremap must not contain nans"
        assert not (scores > 1).any(), "Scoremap must be in range [0, 1]"
        assert not (scores < 0).any(), "Scoremap must be in range [0, 1]"
        return scores

    @staticmethod
    def mask(path, side=224):
        """Read a mask at the size that score maps must have."""
        pixels = np.float32(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        return (cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST) > 0.5).astype(np.uint8)

    @staticmethod
    def resized_box(box, size, side=224):
        return [int(float(value) * side / extent) for value, extent in zip(box, (*size, *size), strict=True)]

    @staticmethod
    def normalized(scoremap):
        if np.isnan(scoremap).any() or scoremap.min() == scoremap.max():
            return np.zeros_like(scoremap)
        scoremap = scoremap - scoremap.min()
        return scoremap / scoremap.max()

    @staticmethod
    def iou(a, b):
        width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
        height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
        areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
        return width * height / (sum(areas) - width * height)

    def boxes(self, image, threshold, multi):
        _, binary = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if not len(contours):
            return [[0, 0, 0, 0]]
        height, width = image.shape
        boxes = []
        for contour in contours if multi else [max(contours, key=cv2.contourArea)]:
            x, y, w, h = cv2.boundingRect(contour)
            boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        return boxes

    def add_boxes(self, cam, true):
        """Make the score map of a map, and count it."""
        resized = cv2.resize(cam, (self.side, self.side), interpolation=cv2.INTER_CUBIC)
        self.add_boxes_of(self.normalized(resized), true)

    def add_boxes_of(self, scoremap, true):
        image = (scoremap * 255).astype(np.uint8)
        for multi, hits in self.hits.items():
            for index, threshold in enumerate(self.thresholds):
                best = max(self.iou(box, other) for box in self.boxes(image, threshold, multi) for other in true)
                for least, of_iou in hits.items():
                    of_iou[index] += best >= least / 100
        self.count += 1

    def max_box_acc(self, multi, ious):
        return np.mean([self.hits[multi][iou].max() / self.count for iou in ious])

    def add_mask(self, cam, mask):
        """Count a map of the mask's size."""
        self.add_mask_of(self.normalized(cam), mask)

    def add_mask_of(self, scoremap, mask):
        self.true += np.histogram(scoremap[mask == 1], bins=self.edges)[0]
        self.false += np.histogram(scoremap[mask == 0], bins=self.edges)[0]

    def pxap(self):
        true, false = self.true[::-1].cumsum(), self.false[::-1].cumsum()
        recall = true / self.true.sum()
        counted = (true + false != 0)[1:]
        precision = (true / np.maximum(true + false, 1))[1:]
        return (precision * np.diff(recall))[counted].sum()


def class_ious(predictions, masks, count=21):
    """YudeWang/SEAM, evaluation.py: the IoU of each class over all photos."""
    true = predicted = hits = np.zeros(count)
    for labels, mask in zip(predictions, masks, strict=True):
        counts = mask < 255
        predicted = predicted + [np.sum((labels == label) * counts) for label in range(count)]
        true = true + [np.sum((mask == label) * counts) for label in range(count)]
        hits = hits + [np.sum((mask == label) * (labels == mask) * counts) for label in range(count)]
    return hits / (true + predicted - hits + 1e-10)


def mask_of(path):
    with Image.open(path) as image:
        return np.array(image)
