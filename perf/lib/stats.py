"""The few statistics that are used: medians, quantiles, and how they are written."""
import statistics


def median(values):
    return statistics.median(values)


def quantile(values, share):
    """By linear interpolation; share 0..1."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values):
    return f"{min(values):.3g}–{max(values):.3g}"


def bytes_text(value):
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"]:
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
